//! The codec of tokio-util: frames in both directions, and the limit before the hello.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use broker_proto::codec::{CodecError, FrameCodec};
use broker_proto::{DecodeError, limits};
use bytes::BytesMut;
use tokio_util::codec::{Decoder, Encoder};

use crate::examples;

#[test]
fn frames_pass_in_order() {
    let mut codec = FrameCodec::greeted();
    let mut wire = BytesMut::new();
    for frame in examples::all() {
        codec.encode(&frame, &mut wire).unwrap();
    }
    for frame in examples::all() {
        assert_eq!(codec.decode(&mut wire).unwrap(), Some(frame));
    }
    assert_eq!(codec.decode(&mut wire).unwrap(), None);
}

#[test]
fn a_large_frame_must_wait_for_the_hello() {
    let mut wire = BytesMut::new();
    let publish = broker_proto::Publish::of(examples::room(), 1, [vec![0; 5000]]);
    let mut codec = FrameCodec::awaiting_hello();
    codec
        .encode(broker_proto::Frame::from(publish), &mut wire)
        .unwrap();
    let error = codec.decode(&mut wire).unwrap_err();
    assert!(matches!(
        error,
        CodecError::Decode(DecodeError::TooLarge {
            limit: limits::HELLO_BYTES_MAX,
            ..
        })
    ));
    codec.set_limit(limits::FRAME_BYTES_MAX);
    assert!(codec.decode(&mut wire).unwrap().is_some());
}
