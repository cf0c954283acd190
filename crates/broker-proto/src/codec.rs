//! [`FrameCodec`]: the frames as a codec of tokio-util, for `Framed`. Behind the feature `codec`.

use bytes::BytesMut;

use crate::decode::{DecodeError, Decoder};
use crate::frame::Frame;
use crate::limits::{FRAME_BYTES_MAX, HELLO_BYTES_MAX};

/// What can go wrong on a framed connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The bytes are not a frame.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The connection failed.
    #[error("the connection failed")]
    Io(#[from] std::io::Error),
}

/// Frames of one connection, with the limit on what comes in.
#[derive(Debug, Clone)]
pub struct FrameCodec {
    decoder: Decoder,
    limit: usize,
}

impl FrameCodec {
    /// For a side that waits for a hello: at most 4 KiB until [`set_limit`](Self::set_limit) says otherwise.
    #[must_use]
    pub fn awaiting_hello() -> Self {
        Self {
            decoder: Decoder::new(),
            limit: HELLO_BYTES_MAX,
        }
    }

    /// For a side that has sent the hello: any frame.
    #[must_use]
    pub fn greeted() -> Self {
        Self {
            decoder: Decoder::new(),
            limit: FRAME_BYTES_MAX,
        }
    }

    /// Sets the largest frame that may come in, in bytes after the length field.
    pub const fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }
}

impl tokio_util::codec::Decoder for FrameCodec {
    type Item = Frame;
    type Error = CodecError;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Frame>, CodecError> {
        Ok(self.decoder.decode(src, self.limit)?)
    }
}

impl tokio_util::codec::Encoder<&Frame> for FrameCodec {
    type Error = CodecError;

    fn encode(&mut self, frame: &Frame, dst: &mut BytesMut) -> Result<(), CodecError> {
        frame.encode(dst);
        Ok(())
    }
}

impl tokio_util::codec::Encoder<Frame> for FrameCodec {
    type Error = CodecError;

    fn encode(&mut self, frame: Frame, dst: &mut BytesMut) -> Result<(), CodecError> {
        frame.encode(dst);
        Ok(())
    }
}
