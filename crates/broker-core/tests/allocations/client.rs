//! What the client library costs.
