//! What is set of the whole store: [`GetSettings`] and [`ChangeSettings`], answered by [`StoreDetails`] or an error.
//!
//! Settings and changes are the list of [`settings`](crate::settings), in the body, and are not judged here.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::Kind;
use super::head::{Parts, Wire, plain_frame, put_head};
use crate::decode::DecodeError;
use crate::name::NameCache;
use crate::settings::{SettingsError, StoreChange, StoreSettings};

/// Client: what is set of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetSettings {
    /// The client's number of this request; the answer carries it.
    pub correlation: u32,
}

plain_frame!(GetSettings);

/// Client: change what is set of the store. Answered when the change is on stable storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeSettings {
    /// The client's number of this request; the answer carries it.
    pub correlation: u32,
    /// With [`COMPARE`](Self::COMPARE): how often the settings must have been changed.
    pub expected: u64,
    /// Bits of [`COMPARE`](Self::COMPARE).
    pub flags: u32,
    /// The change, a list as [`StoreChange::encode`] writes it.
    pub change: Bytes,
}

#[derive(Serialize, Deserialize)]
struct ChangeSettingsHeader {
    correlation: u32,
    expected: u64,
    flags: u32,
}

impl ChangeSettings {
    /// Flag: only when the settings were changed as often as `expected` says.
    pub const COMPARE: u32 = 1;

    /// A change, only when the settings were changed `expected` times if that is given.
    #[must_use]
    pub fn new(correlation: u32, change: &StoreChange, expected: Option<u64>) -> Self {
        let mut list = Vec::new();
        change.encode(&mut list);
        Self {
            correlation,
            expected: expected.unwrap_or_default(),
            flags: expected.map_or(0, |_| Self::COMPARE),
            change: list.into(),
        }
    }

    /// How often the settings must have been changed, when that counts.
    #[must_use]
    pub const fn expected(&self) -> Option<u64> {
        if self.flags & Self::COMPARE == 0 {
            None
        } else {
            Some(self.expected)
        }
    }

    /// What changes.
    ///
    /// # Errors
    /// When the list breaks a rule, or has a key that this version does not know.
    pub fn change(&self) -> Result<StoreChange, SettingsError> {
        StoreChange::decode(&self.change)
    }
}

impl Wire for ChangeSettings {
    const KIND: Kind = Kind::ChangeSettings;

    fn put(&self, out: &mut BytesMut) {
        let header = ChangeSettingsHeader {
            correlation: self.correlation,
            expected: self.expected,
            flags: self.flags,
        };
        put_head(out, Self::KIND, &header, [], self.change.len());
        out.put_slice(&self.change);
    }

    fn take(parts: Parts, _: &mut NameCache) -> Result<Self, DecodeError> {
        let header: ChangeSettingsHeader = parts.plain_header()?;
        Ok(Self {
            correlation: header.correlation,
            expected: header.expected,
            flags: parts.flags(header.flags, Self::COMPARE)?,
            change: Bytes::copy_from_slice(parts.body()),
        })
    }
}

/// Broker: what is set of the store now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreDetails {
    /// The request that this answers.
    pub correlation: u32,
    /// How often the settings were changed.
    pub version: u64,
    /// What is set, a list as [`StoreSettings::encode`] writes it.
    pub settings: Bytes,
}

#[derive(Serialize, Deserialize)]
struct StoreDetailsHeader {
    correlation: u32,
    version: u64,
}

impl StoreDetails {
    /// What is set. Settings that this version does not know are passed over.
    ///
    /// # Errors
    /// When a known one has a value that it cannot have.
    pub fn settings(&self) -> Result<StoreSettings, SettingsError> {
        StoreSettings::decode(&self.settings)
    }
}

impl Wire for StoreDetails {
    const KIND: Kind = Kind::StoreDetails;

    fn put(&self, out: &mut BytesMut) {
        let header = StoreDetailsHeader {
            correlation: self.correlation,
            version: self.version,
        };
        put_head(out, Self::KIND, &header, [], self.settings.len());
        out.put_slice(&self.settings);
    }

    fn take(parts: Parts, _: &mut NameCache) -> Result<Self, DecodeError> {
        let StoreDetailsHeader {
            correlation,
            version,
        } = parts.plain_header()?;
        let settings = Bytes::copy_from_slice(parts.body());
        Ok(Self {
            correlation,
            version,
            settings,
        })
    }
}
