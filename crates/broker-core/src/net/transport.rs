//! What a server listens on: a TCP port, the store's Unix socket, or anything else that gives byte
//! streams, such as a simulated network.
//!
//! The connection code above knows only [`Stream`] and [`Origin`].

use std::fmt;
use std::fs;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::PathBuf;
use std::process;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: u32 = 1024;

/// A byte stream to one peer.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// Where a connection comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// A TCP port.
    Tcp(SocketAddr),
    /// The store's Unix socket; the kernel has vouched that it is the same user.
    Unix,
    /// This process.
    InProcess,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp://{address}"),
            Self::Unix => f.write_str("unix"),
            Self::InProcess => f.write_str("in process"),
        }
    }
}

/// Where connections come in.
pub trait Listener: Send + 'static {
    /// The streams that it gives.
    type Stream: Stream;

    /// Waits for the next connection. Dropping the future loses none.
    ///
    /// # Errors
    /// Of the one connection that failed, or of the process, such as too many open files. The next
    /// call may succeed.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Stream, Origin)>> + Send;

    /// Its address as a URL, for people.
    fn address(&self) -> String;
}

/// A TCP port.
#[derive(Debug)]
pub struct TcpDoor {
    listener: TcpListener,
    address: SocketAddr,
}

impl TcpDoor {
    /// Listens on `address`; port 0 takes a free one. Called on a tokio runtime.
    ///
    /// # Errors
    /// As the system says, such as that the port is taken.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // A restart must not wait for connections of the last run to time out. Sharing the port with
        // another process is something else, and would split the clients between two stores.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Goes on at a port that another process has listened at and has passed on. Nobody who connects
    /// meanwhile is turned away: whoever was not accepted yet waits in the kernel. Called on a tokio
    /// runtime.
    ///
    /// # Errors
    /// The descriptor is no listening TCP socket.
    pub fn inherit(passed: OwnedFd) -> io::Result<Self> {
        let listener = StdTcpListener::from(passed);
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        Ok(Self { listener, address })
    }

    /// The port as a descriptor, to pass it on.
    ///
    /// # Errors
    /// There are too many open files.
    pub fn share(&self) -> io::Result<OwnedFd> {
        self.listener.as_fd().try_clone_to_owned()
    }

    /// Where it listens, with the port that it was given.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

impl Listener for TcpDoor {
    type Stream = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, Origin)> {
        let (stream, from) = self.listener.accept().await?;
        // Frames are written whole, so waiting for more to send only delays them.
        stream.set_nodelay(true)?;
        limit_unsent(&stream);
        Ok((stream, Origin::Tcp(from)))
    }

    fn address(&self) -> String {
        format!("tcp://{}", self.address)
    }
}

/// Limits what the kernel keeps for a peer beyond what is on its way to it. Without that it grows to a megabyte for each peer that does not
/// read, out of sight of the process that causes it.
#[cfg(target_os = "linux")]
fn limit_unsent(stream: &TcpStream) {
    const UNSENT_BYTES_MAX: u32 = 128 << 10;
    if let Err(error) = socket2::SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_BYTES_MAX) {
        tracing::debug!(%error, "cannot limit what the kernel keeps for a peer");
    }
}

#[cfg(not(target_os = "linux"))]
fn limit_unsent(_: &TcpStream) {}

/// The store's Unix socket. Only the holder of the store's lock may bind it.
#[derive(Debug)]
pub struct UnixDoor {
    listener: UnixListener,
    shown: PathBuf,
}

impl UnixDoor {
    /// Listens under the name `path`, taking it over from whoever had it: a socket is bound to a
    /// temporary name beside it and renamed, so that at no moment nobody has the name. It is never
    /// removed: after a hand-over it is the next leader's. Called on a tokio runtime.
    ///
    /// `place` gives the path under which a name in the directory can be bound, `shown` is the
    /// socket's path for people.
    ///
    /// # Errors
    /// As the system says.
    pub fn bind(place: impl Fn(&str) -> PathBuf, name: &str, shown: PathBuf) -> io::Result<Self> {
        let temporary = place(&format!(".{name}.{}", process::id()));
        // Left over from a process with the same id that was killed between the two steps.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = StdUnixListener::bind(&temporary)?;
        listener.set_nonblocking(true)?;
        fs::rename(&temporary, place(name))?;
        Ok(Self {
            listener: UnixListener::from_std(listener)?,
            shown,
        })
    }

    /// Goes on at a socket that another process has listened at and has passed on. Called on a tokio
    /// runtime.
    ///
    /// # Errors
    /// The descriptor is no listening Unix socket.
    pub fn inherit(passed: OwnedFd, shown: PathBuf) -> io::Result<Self> {
        let listener = StdUnixListener::from(passed);
        // Fails for anything but a socket of this family.
        listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        Ok(Self { listener, shown })
    }

    /// The socket as a descriptor, to pass it on.
    ///
    /// # Errors
    /// There are too many open files.
    pub fn share(&self) -> io::Result<OwnedFd> {
        self.listener.as_fd().try_clone_to_owned()
    }
}

impl Listener for UnixDoor {
    type Stream = UnixStream;

    async fn accept(&mut self) -> io::Result<(UnixStream, Origin)> {
        loop {
            let (stream, _) = self.listener.accept().await?;
            let (peer, own) = (
                stream.peer_cred()?.uid(),
                rustix::process::getuid().as_raw(),
            );
            if peer == own {
                return Ok((stream, Origin::Unix));
            }
            // The directory is closed to others already; root still comes through.
            tracing::warn!(
                user = peer,
                "refused a connection of another user at the store's socket"
            );
        }
    }

    fn address(&self) -> String {
        format!("unix:{}", self.shown.display())
    }
}
