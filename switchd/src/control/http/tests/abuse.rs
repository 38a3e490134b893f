//! Clients that are slow, many, large or gone.

use super::*;
use std::time::Instant;

/// Whether the server ends the connection within `time`.
async fn closed_within(stream: &mut UnixStream, time: Duration) -> bool {
    let mut waste = Vec::new();
    tokio::time::timeout(time, stream.read_to_end(&mut waste)).await.is_ok()
}

#[tokio::test]
async fn a_body_of_64_mb_is_refused_before_it_is_read() {
    let server = Server::start(Limits::DEFAULT);
    let mut stream = server.connect().await;
    let head = "PUT /v1/config HTTP/1.1\r\nHost: s\r\nContent-Type: application/toml\r\n\
                Content-Length: 67108864\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = Answer::read(&mut stream).await;
    assert!(answer.error(413, "too-large").contains("1048576"));
    assert!(answer.head.contains("connection: close"));
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_writes_all_of_64_mb_first_still_finds_the_reply() {
    let server = Server::start(Limits::DEFAULT);
    for head in [
        "POST /v1/networks HTTP/1.1\r\nContent-Length: 67108864",
        "DELETE /v1/networks/lab HTTP/1.1\r\nContent-Length: 67108864",
        "POST /nowhere HTTP/1.1\r\nContent-Length: 67108864",
    ] {
        let mut stream = server.connect().await;
        stream.write_all(format!("{head}\r\nHost: s\r\n\r\n").as_bytes()).await.unwrap();
        let chunk = vec![b' '; 1 << 20];
        for _ in 0..64 {
            stream.write_all(&chunk).await.unwrap();
        }
        Answer::read(&mut stream).await.error(413, "too-large");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_chunked_body_is_cut_off_at_the_limit() {
    let server = Server::start(Limits::DEFAULT);
    let mut stream = server.connect().await;
    let head = "POST /v1/networks HTTP/1.1\r\nHost: s\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(65536));
    for _ in 0..17 {
        stream.write_all(chunk.as_bytes()).await.unwrap();
    }
    Answer::read(&mut stream).await.error(413, "too-large");
    server.stop().await;
}

#[tokio::test]
async fn a_head_that_does_not_end_closes_the_connection() {
    let server = Server::start(QUICK);
    let mut silent = server.connect().await;
    let mut half = server.connect().await;
    half.write_all(b"GET /v1/status HT").await.unwrap();
    let mut endless = server.connect().await;
    let endless = tokio::spawn(async move {
        endless.write_all(b"GET /v1/status HTTP/1.1\r\n").await.unwrap();
        let mut bytes = 0;
        while endless.write_all(b"x-y: 0123456789\r\n").await.is_ok() {
            bytes += 17;
            assert!(bytes < 10 << 20, "an endless head is read for ever");
        }
    });
    assert!(closed_within(&mut silent, Duration::from_secs(2)).await);
    assert!(closed_within(&mut half, Duration::from_secs(2)).await);
    tokio::time::timeout(Duration::from_secs(5), endless).await.unwrap().unwrap();
    server.stop().await;
}

#[tokio::test]
async fn a_body_that_does_not_come_is_told_so() {
    let server = Server::start(QUICK);
    let mut stream = server.connect().await;
    let head = "POST /v1/networks HTTP/1.1\r\nHost: s\r\nContent-Length: 40\r\n\r\n{\"name\":";
    stream.write_all(head.as_bytes()).await.unwrap();
    assert!(Answer::read(&mut stream).await.error(408, "timeout").contains("body"));
    server.stop().await;
}

#[tokio::test]
async fn an_idle_connection_serves_again_and_is_closed_after_its_time() {
    let server = Server::start(QUICK);
    let mut stream = server.connect().await;
    let mut reply = vec![0; 1 << 20];
    for _ in 0..2 {
        stream.write_all(b"GET /nowhere HTTP/1.1\r\nHost: s\r\n\r\n").await.unwrap();
        let n = stream.read(&mut reply).await.unwrap();
        assert_eq!(Answer::parse(std::str::from_utf8(&reply[..n]).unwrap()).status, 404);
        tokio::time::sleep(QUICK.idle / 2).await;
    }
    assert!(closed_within(&mut stream, QUICK.idle * 2).await);
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off() {
    let server = Server::start(QUICK);
    let mut stream = server.connect().await;
    let mut asked = 0;
    let ask = async {
        // Each reply is some 50 kB; the socket holds a few.
        while stream.write_all(b"GET /v1/openapi.json HTTP/1.1\r\nHost: s\r\n\r\n").await.is_ok() {
            asked += 1;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), ask).await.unwrap();
    assert!(asked > 1);
    server.stop().await;
}

#[tokio::test]
async fn a_thousand_connections_that_ask_nothing_starve_nobody() {
    raise_descriptor_limit();
    let server = Server::start(Limits::DEFAULT);
    let mut crowd = Vec::new();
    for number in 0..1000 {
        let mut stream = server.connect().await;
        let _ = match number % 3 {
            0 => Ok(()),
            1 => stream.write_all(b"GET /v1/st").await,
            _ => stream.write_all(b"POST /v1/networks HTTP/1.1\r\nContent-Length: 9\r\n\r\n{").await,
        };
        crowd.push(stream);
    }
    let start = Instant::now();
    assert_eq!(server.get("/v1/openapi.json").await.status, 200);
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    let held = server.sockets();
    assert!(held <= Limits::DEFAULT.connections + 8, "{held} sockets for a bound of 256");
    drop(crowd);
    assert_eq!(server.get("/v1/openapi.json").await.status, 200);
    server.stop().await;
}

/// The crowd and the server live in one process here.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

#[tokio::test]
async fn when_all_connections_are_at_work_the_next_one_is_told_so() {
    let server = Server::start(Limits { connections: 4, ..Limits::DEFAULT });
    let engine = server.engine.clone();
    let held = engine.lock().await;
    let mut working = Vec::new();
    for _ in 0..4 {
        let mut stream = server.connect().await;
        stream.write_all(request("GET /v1/networks HTTP/1.1", "").as_bytes()).await.unwrap();
        working.push(stream);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut crowd = Vec::new();
    for _ in 0..20 {
        let mut late = server.connect().await;
        let _ = late.write_all(request("GET /v1/networks HTTP/1.1", "").as_bytes()).await;
        crowd.push(late);
    }
    for mut late in crowd {
        let mut bytes = Vec::new();
        // The reply comes before the news that nobody read our request.
        while late.read_buf(&mut bytes).await.is_ok_and(|n| n > 0) {}
        let answer = Answer::parse(&String::from_utf8(bytes).unwrap());
        assert!(answer.error(503, "unavailable").contains("at work"));
    }
    drop(held);
    for stream in &mut working {
        assert_eq!(Answer::read(stream).await.status, 200);
    }
    assert_eq!(server.get("/v1/networks").await.status, 200);
    server.stop().await;
}

#[tokio::test]
async fn streams_have_a_bound_of_their_own_and_end_with_the_daemon() {
    let server = Server::start(Limits { streams: 2, ..QUICK });
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut stream = server.connect().await;
        stream.write_all(b"GET /v1/events HTTP/1.1\r\nHost: s\r\n\r\n").await.unwrap();
        let mut head = vec![0; 4096];
        let n = stream.read(&mut head).await.unwrap();
        assert!(String::from_utf8_lossy(&head[..n]).contains("text/event-stream"));
        streams.push(stream);
    }
    server.get("/v1/events").await.error(503, "unavailable");
    // A silent stream outlives all times; a place is free as soon as a reader has gone.
    tokio::time::sleep(QUICK.idle * 2).await;
    drop(streams.pop());
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut again = server.connect().await;
    again.write_all(b"GET /v1/events HTTP/1.1\r\nHost: s\r\n\r\n").await.unwrap();
    let mut head = vec![0; 4096];
    let n = again.read(&mut head).await.unwrap();
    assert!(String::from_utf8_lossy(&head[..n]).starts_with("HTTP/1.1 200"));
    server.stop().await;
    assert!(closed_within(&mut streams[0], Duration::from_secs(1)).await);
}

#[tokio::test]
async fn what_is_not_http_harms_nobody() {
    let server = Server::start(QUICK);
    for noise in [
        &b"\x00\xff\x16\x03\x01"[..],
        b"GET / HTTP/9.9\r\n\r\n",
        b"\r\n\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM",
    ] {
        let mut stream = server.connect().await;
        let _ = stream.write_all(noise).await;
        assert!(closed_within(&mut stream, Duration::from_secs(2)).await);
    }
    assert_eq!(server.get("/v1/openapi.json").await.status, 200);
    server.stop().await;
}
