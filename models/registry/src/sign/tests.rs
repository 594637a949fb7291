//! Tests of signatures, one of them made by PyPI's `model-signing` 1.x. Must not know trust.

use super::*;

/// Made for these tests with `openssl ecparam -name prime256v1 -genkey`; it protects nothing.
const PRIVATE: &str = "-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIBMS+Fvwj52tX7wxpnYtPhzCgTH0iDa/gooevKHX/4NloAoGCCqGSM49
AwEHoUQDQgAEm/8+hB6Pjvwzvni7czFkFGQq2fc62qe+JY+hjiBuesWHw0gnRoN2
2Gn+TuqL8vkdS6m1XBhaB7rQrhNN0yLYcw==
-----END EC PRIVATE KEY-----
";
const PUBLIC: &str = include_str!("key.pub");
const FOREIGN: &str = include_str!("foreign.sig");

fn package() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("data")).unwrap();
    fs::write(dir.path().join("model.onnx"), "hi\n").unwrap();
    fs::write(dir.path().join("data/w.bin"), "x\n").unwrap();
    dir
}

fn keys() -> Vec<PublicKey> {
    vec![PublicKey::from_pem(PUBLIC).unwrap()]
}

#[test]
fn a_signature_of_the_python_tool_is_understood() {
    let dir = package();
    fs::write(dir.path().join(SIGNATURE_FILE), FOREIGN).unwrap();
    assert_eq!(verify(dir.path(), &keys()), Ok("iris@3".to_owned()));
}

#[test]
fn every_change_is_noticed() {
    let check = |change: &dyn Fn(&Path), part: &str| {
        let dir = package();
        let signature = sign(dir.path(), "iris@3", PRIVATE).unwrap();
        fs::write(dir.path().join(SIGNATURE_FILE), signature).unwrap();
        assert_eq!(verify(dir.path(), &keys()).unwrap(), "iris@3");
        change(dir.path());
        let message = verify(dir.path(), &keys()).unwrap_err();
        assert!(message.contains(part), "{part}: {message}");
    };
    check(&|dir| fs::write(dir.join("model.onnx"), "ho\n").unwrap(), "'model.onnx' was changed");
    check(&|dir| fs::write(dir.join("more"), "").unwrap(), "'more' was not signed");
    check(&|dir| fs::write(dir.join("data/.hidden"), "").unwrap(), "was not signed");
    check(&|dir| fs::remove_file(dir.join("data/w.bin")).unwrap(), "'data/w.bin' was signed and is missing");
    check(&|dir| fs::remove_file(dir.join(SIGNATURE_FILE)).unwrap(), "got none");
    check(&|dir| std::os::unix::fs::symlink("/etc", dir.join("link")).unwrap(), "something else");
    check(
        &|dir| {
            let text = fs::read_to_string(dir.join(SIGNATURE_FILE)).unwrap();
            let mut bundle: serde_json::Value = serde_json::from_str(&text).unwrap();
            let payload = STANDARD.decode(bundle["dsseEnvelope"]["payload"].as_str().unwrap()).unwrap();
            let changed = String::from_utf8(payload).unwrap().replace("iris@3", "iris@4");
            bundle["dsseEnvelope"]["payload"] = STANDARD.encode(changed).into();
            fs::write(dir.join(SIGNATURE_FILE), bundle.to_string()).unwrap();
        },
        "not valid",
    );
}

#[test]
fn other_keys_count_for_nothing() {
    let dir = package();
    fs::write(dir.path().join(SIGNATURE_FILE), FOREIGN).unwrap();
    let other = SigningKey::from_slice(&[7; 32]).unwrap();
    let other = PublicKey::of(*other.verifying_key()).unwrap();
    assert!(verify(dir.path(), &[other]).unwrap_err().contains("trusted key"));
    assert!(verify(dir.path(), &[]).is_err());
    assert!(PublicKey::from_pem("nonsense").is_err());
    assert!(sign(dir.path(), "x", PUBLIC).unwrap_err().contains("private key"));
}
