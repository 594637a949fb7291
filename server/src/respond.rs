//! The one table that turns failures into HTTP status and gRPC code. Must not know which endpoint failed.

use std::borrow::Cow;

use gannet_runtime::InferError;
use http::StatusCode;
use tonic::Code;

/// A failure as the caller sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What kind it is; decides the codes.
    pub kind: Kind,
    /// What, where, expected, got, what to do.
    pub message: Cow<'static, str>,
    /// When to try again, in milliseconds.
    pub retry_after_ms: Option<u64>,
}

/// The closed set of failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request is wrong.
    Invalid,
    /// No such path, model or version.
    NotFound,
    /// The path is right, the verb is not.
    MethodNotAllowed,
    /// Not without permission.
    Forbidden,
    /// No or wrong credentials.
    Unauthenticated,
    /// The state of something forbids it (a writer came between).
    Conflict,
    /// What the caller knew of it is no longer so: look again.
    Precondition,
    /// The body is over its limit.
    TooLarge,
    /// The body's format or encoding is not known.
    UnsupportedMedia,
    /// The sender was too slow.
    SlowSender,
    /// Full, or the deadline cannot be met: try again.
    Exhausted,
    /// Not ready, or shutting down.
    Unavailable,
    /// The deadline passed.
    Expired,
    /// The caller left.
    Cancelled,
    /// Not offered.
    Unsupported,
    /// The server or the model failed.
    Internal,
}

impl Kind {
    /// In a word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::Forbidden => "forbidden",
            Self::Unauthenticated => "unauthenticated",
            Self::Conflict => "conflict",
            Self::Precondition => "precondition",
            Self::TooLarge => "too_large",
            Self::UnsupportedMedia => "unsupported_media",
            Self::SlowSender => "slow_sender",
            Self::Exhausted => "exhausted",
            Self::Unavailable => "unavailable",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Unsupported => "unsupported",
            Self::Internal => "internal",
        }
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::Invalid => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Conflict => StatusCode::CONFLICT,
            Self::Precondition => StatusCode::PRECONDITION_FAILED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMedia => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::SlowSender => StatusCode::REQUEST_TIMEOUT,
            Self::Exhausted | Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Expired => StatusCode::GATEWAY_TIMEOUT,
            // nginx's word for a caller who left; nobody reads it but the access log
            Self::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
            Self::Unsupported => StatusCode::NOT_IMPLEMENTED,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The gRPC code.
    #[must_use]
    pub fn code(self) -> Code {
        match self {
            Self::Invalid | Self::UnsupportedMedia | Self::TooLarge => Code::InvalidArgument,
            Self::NotFound => Code::NotFound,
            Self::MethodNotAllowed | Self::Unsupported => Code::Unimplemented,
            Self::Forbidden => Code::PermissionDenied,
            Self::Unauthenticated => Code::Unauthenticated,
            Self::Conflict => Code::Aborted,
            Self::Precondition => Code::FailedPrecondition,
            Self::Exhausted => Code::ResourceExhausted,
            Self::Unavailable => Code::Unavailable,
            Self::Expired | Self::SlowSender => Code::DeadlineExceeded,
            Self::Cancelled => Code::Cancelled,
            Self::Internal => Code::Internal,
        }
    }
}

impl Refusal {
    /// A refusal of that kind.
    pub fn new(kind: Kind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into(), retry_after_ms: None }
    }

    /// The request is wrong.
    pub fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    /// As a gRPC status.
    #[must_use]
    pub fn to_status(&self) -> tonic::Status {
        let mut status = tonic::Status::new(self.kind.code(), self.message.clone().into_owned());
        if let Some(ms) = self.retry_after_ms
            && let Ok(value) = ms.to_string().parse()
        {
            status.metadata_mut().insert("retry-after-ms", value);
        }
        status
    }
}

impl From<InferError> for Refusal {
    fn from(error: InferError) -> Self {
        let (kind, retry_after_ms) = match &error {
            InferError::UnknownModel(_) | InferError::UnknownVersion { .. } => (Kind::NotFound, None),
            InferError::NotReady { .. } | InferError::NoVersion { .. } => (Kind::Unavailable, Some(1000)),
            InferError::Invalid(_) => (Kind::Invalid, None),
            InferError::QueueFull { retry_after_ms, .. }
            | InferError::Unaffordable { retry_after_ms, .. } => (Kind::Exhausted, Some(*retry_after_ms)),
            InferError::Expired { .. } => (Kind::Expired, None),
            InferError::Cancelled => (Kind::Cancelled, None),
            InferError::Backend { .. } => (Kind::Internal, None),
            InferError::ShuttingDown => (Kind::Unavailable, Some(1000)),
        };
        Self { kind, message: error.to_string().into(), retry_after_ms }
    }
}
