//! The addresses at which rank 0 listens.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};

/// Listens at an address of this machine. Listens at all addresses if this one belongs to another machine that forwards connections (NAT,
/// services of Kubernetes), or if [`says_nothing`].
pub(crate) fn listen(host: &str, port: u16) -> io::Result<TcpListener> {
    let named: Vec<SocketAddr> = (host, port)
        .to_socket_addrs()
        .map_or_else(|_| Vec::new(), Iterator::collect);
    if !says_nothing(host, &named) {
        match TcpListener::bind(&named[..]) {
            Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {}
            other => return other,
        }
    }
    let all: [SocketAddr; 2] = [
        (Ipv6Addr::UNSPECIFIED, port).into(),
        (Ipv4Addr::UNSPECIFIED, port).into(),
    ];
    // An IPv6 socket takes connections of both kinds, unless the system is set up otherwise.
    let only_v4 = !named.is_empty() && named.iter().all(SocketAddr::is_ipv4);
    TcpListener::bind(&all[usize::from(only_v4)..])
}

/// Whether the addresses of a host do not say where other machines connect to: its name is not known yet, or it is this machine's own name
/// and stands for the loopback here.
fn says_nothing(host: &str, named: &[SocketAddr]) -> bool {
    let means_loopback = host == "localhost" || host.parse::<IpAddr>().is_ok();
    !means_loopback && named.iter().all(|address| address.ip().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_addresses_are_not_opened_to_other_machines() {
        for host in ["127.0.0.1", "localhost"] {
            let listener = listen(host, 0).unwrap();
            assert!(listener.local_addr().unwrap().ip().is_loopback(), "{host}");
        }
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        for (host, named, nothing) in [
            ("localhost", &[at("127.0.0.1:1"), at("[::1]:1")][..], false),
            ("127.0.1.1", &[at("127.0.1.1:1")], false),
            ("node0", &[at("10.0.0.7:1")], false),
            // The name of this machine in its own list of hosts.
            ("node0", &[at("127.0.1.1:1")], true),
            ("node0", &[], true),
        ] {
            assert_eq!(says_nothing(host, named), nothing, "{host}, {named:?}");
        }
    }
}
