/* Runs what a bundle brings and needs no interpreter, on a bare Cortex-M4: the model's bytes as they lie in memory, values
 * to codes and back, the largest code, names of classes. NAME is the bundle's; ENDS are what the host computed. Says what
 * is wrong through semihosting, and exits with 0 or 1. */

#include <stddef.h>
#include <stdint.h>

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define OF(part) JOIN(NAME, part)
#define UPPER_OF(part) JOIN(UPPER, part)

#include GOLDEN_HEADER
#include PREPOST_HEADER

int main(void);

static int ask(int operation, const void *argument)
{
  register int r0 __asm__("r0") = operation;
  register const void *r1 __asm__("r1") = argument;
  __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
  return r0;
}

static void end(int code)
{
  /* SYS_EXIT_EXTENDED with ADP_Stopped_ApplicationExit */
  const uint32_t block[2] = { 0x20026u, (uint32_t)code };
  for (;;) {
    ask(0x20, block);
  }
}

static void check(int good, const char *what)
{
  if (!good) {
    ask(0x04, what);
    end(1);
  }
}

void reset(void)
{
  /* lets the program use floating-point numbers */
  *(volatile uint32_t *)0xe000ed88u |= 0xfu << 20;
  __asm__ volatile("dsb; isb");
  end(main());
}

extern const uint32_t vectors[2];
__attribute__((section(".vectors"), used)) const uint32_t vectors[2] = { 0x20400000u, (uint32_t)(uintptr_t)reset + 0u };

static int same(const char *a, const char *b)
{
  while (*a != '\0' && *a == *b) {
    ++a;
    ++b;
  }
  return *a == *b;
}

static float values[UPPER_OF(_OUTPUT_ELEMENTS)];

int main(void)
{
  uint32_t sum = 0;
  for (size_t i = 0; i < UPPER_OF(_MODEL_BYTES); ++i) {
    sum = sum * 31u + OF(_model)[i];
  }
  check(sum == MODEL_SUM, "the model's bytes are others\n");
  check(((uintptr_t)OF(_model) & 15u) == 0u, "the model is not aligned\n");

  for (int code = -128; code <= 127; ++code) {
    const float value = (float)(code - UPPER_OF(_INPUT_ZERO_POINT)) * UPPER_OF(_INPUT_SCALE);
    int8_t got = 0;
    OF(_quantize)(&value, &got, 1);
    check(got == code, "a value has another code\n");
  }
  const float far[2] = { 1e30f, -1e30f };
  int8_t ends[2] = { 0, 0 };
  OF(_quantize)(far, ends, 2);
  check(ends[0] == 127 && ends[1] == -128, "far values have other codes\n");

  for (size_t row = 0; row < UPPER_OF(_GOLDEN_ROWS); ++row) {
    const int8_t *codes = OF(_golden_outputs)[row];
    OF(_dequantize)(codes, values, UPPER_OF(_OUTPUT_ELEMENTS));
    const size_t best = OF(_largest)(codes, UPPER_OF(_OUTPUT_ELEMENTS));
    for (size_t i = 0; i < UPPER_OF(_OUTPUT_ELEMENTS); ++i) {
      const float expected = (float)(codes[i] - UPPER_OF(_OUTPUT_ZERO_POINT)) * UPPER_OF(_OUTPUT_SCALE);
      check(values[i] == expected, "a code has another value\n");
      check(codes[i] <= codes[best], "another code is larger\n");
    }
  }
  check(same(OF(_class_name)(0), FIRST_CLASS), "the first class has another name\n");
  check(same(OF(_class_name)(UPPER_OF(_CLASSES)), ""), "there is a class too many\n");
  ask(0x04, "all as on the host\n");
  return 0;
}
