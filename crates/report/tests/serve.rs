//! The page on loopback.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

/// The answer to a request.
fn get(address: &str, path: &str, host: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn evaluation(root: &Path, value: f64) {
    fs::write(root.join("plan.toml"), "size = 3").unwrap();
    let report = format!("{{\"measures\":[{{\"name\":\"FID\",\"value\":{value}}}]}}");
    fs::write(root.join("report.json"), report).unwrap();
}

#[test]
fn the_page_follows_its_folder_and_other_hosts_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    evaluation(dir.path(), 1.5);
    let stop = AtomicBool::new(false);
    let folders = [dir.path().to_owned()];
    std::thread::scope(|scope| {
        let (send, receive) = mpsc::channel();
        let stop = &stop;
        let server = scope.spawn(move || {
            sdft_report::watch(&folders, &|_| None, 0, stop, &mut |address| {
                send.send(address.to_owned()).unwrap();
            })
        });
        let url: String = receive.recv().unwrap();
        let address = url.trim_start_matches("http://").trim_end_matches('/');
        let page = get(address, "/", address);
        assert!(
            page.starts_with("HTTP/1.1 200") && page.contains("text/html"),
            "{page}"
        );
        assert!(page.contains("1.5") && page.contains("data-live"));
        let version = get(address, "/version", address);
        evaluation(dir.path(), 12.25);
        assert_ne!(get(address, "/version", address), version);
        assert!(get(address, "/", address).contains("12.2"));
        assert!(get(address, "/", "example.org").starts_with("HTTP/1.1 403"));
        assert!(get(address, "/x", address).starts_with("HTTP/1.1 404"));
        // A folder that is damaged meanwhile is an answer, not the end.
        fs::write(dir.path().join("report.json"), "{").unwrap();
        assert!(get(address, "/", address).starts_with("HTTP/1.1 500"));
        stop.store(true, Ordering::Relaxed);
        server.join().unwrap().unwrap();
    });
}
