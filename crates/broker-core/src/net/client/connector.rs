//! [`Connector`]: where a client's byte streams come from.
//!
//! A TCP port, a Unix socket, or anything that implements [`Connect`]: an in-process pipe to a broker in the same program,
//! or a simulated network. The client above sees only an [`AsyncRead`] + [`AsyncWrite`] and behaves the same over each.

use std::fmt;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::url::Address;
use crate::dir::HEALTH_SOCKET_NAME;

/// Longest path that the kernel takes for a Unix socket, in bytes, without the final zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// What a client can talk over.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// Any byte stream.
pub type BoxStream = Box<dyn Stream>;

/// A stream that is being opened.
pub type Opening<'a> = Pin<Box<dyn Future<Output = io::Result<BoxStream>> + Send + 'a>>;

/// Opens streams to one broker, again after each loss.
pub trait Connect: Send + Sync + 'static {
    /// Opens a stream. Dropping the future gives up.
    ///
    /// # Errors
    /// Any; the client tries again until its timeout and then tells the last one.
    fn connect(&self) -> Opening<'_>;

    /// The address as people write it, for errors and logs.
    fn address(&self) -> String;

    /// Where to ask how the broker is when it does not answer: the store's second socket. `None`: nowhere.
    fn health_socket(&self) -> Option<PathBuf> {
        None
    }

    /// Whether the last stream leads to a broker that this process serves itself; `pid` is the process
    /// that the broker says it is.
    fn leads(&self, pid: u32) -> bool {
        let _ = pid;
        false
    }
}

/// Where a client's streams come from. Cloning is cheap.
#[derive(Clone)]
pub struct Connector(Arc<dyn Connect>);

impl Connector {
    /// Streams of your own making.
    #[must_use]
    pub fn new(connect: impl Connect) -> Self {
        Self(Arc::new(connect))
    }

    pub(super) fn connect(&self) -> Opening<'_> {
        self.0.connect()
    }

    pub(super) fn address(&self) -> String {
        self.0.address()
    }

    pub(super) fn health_socket(&self) -> Option<PathBuf> {
        self.0.health_socket()
    }

    pub(super) fn leads(&self, pid: u32) -> bool {
        self.0.leads(pid)
    }
}

impl From<Address> for Connector {
    fn from(address: Address) -> Self {
        Self::new(address)
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connector({})", self.address())
    }
}

impl Connect for Address {
    fn connect(&self) -> Opening<'_> {
        Box::pin(async move {
            let stream: BoxStream = match self {
                Self::Tcp { host, port } => {
                    let stream = TcpStream::connect((host.as_str(), *port)).await?;
                    // Frames are written whole, so waiting for more to send only delays them.
                    stream.set_nodelay(true)?;
                    Box::new(stream)
                }
                Self::Unix(path) => Box::new(connect_unix(path).await?),
            };
            Ok(stream)
        })
    }

    fn address(&self) -> String {
        self.to_string()
    }

    fn health_socket(&self) -> Option<PathBuf> {
        match self {
            Self::Tcp { .. } => None,
            Self::Unix(path) => Some(path.with_file_name(HEALTH_SOCKET_NAME)),
        }
    }
}

/// Connects to a Unix socket, also when its path is longer than the kernel takes.
pub(in crate::net) async fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    if path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        return UnixStream::connect(path).await;
    }
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the path names no file",
        ));
    };
    // The directory's descriptor stands for its long path. It must stay open until the connect is done.
    let dir = open_dir(dir)?;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&dir);
    let stream = UnixStream::connect(Path::new(&format!("/proc/self/fd/{fd}")).join(name)).await;
    drop(dir);
    stream
}

#[expect(
    clippy::disallowed_methods,
    reason = "it only names a directory; nothing of a store is read or written"
)]
fn open_dir(dir: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(dir, flags, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::{Address, Connector, SOCKET_PATH_BYTES_MAX};
    use std::os::fd::AsRawFd;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixListener;

    #[tokio::test]
    async fn a_socket_behind_a_long_path_is_reached() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("d".repeat(100)).join("e".repeat(100));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("socket");
        assert!(path.as_os_str().len() > SOCKET_PATH_BYTES_MAX);
        let fd = super::open_dir(&dir).unwrap();
        let listener =
            UnixListener::bind(format!("/proc/self/fd/{}/socket", fd.as_raw_fd())).unwrap();
        let connector = Connector::from(Address::unix(&path));
        let (client, server) = tokio::join!(connector.connect(), listener.accept());
        client.unwrap().write_all(b"x").await.unwrap();
        let mut byte = [0];
        server.unwrap().0.read_exact(&mut byte).await.unwrap();
        assert_eq!(&byte, b"x");
    }
}
