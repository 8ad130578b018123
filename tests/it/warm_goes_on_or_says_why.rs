//! A run of `seawall warm` goes on as far as the origin and its limits allow, and where it cannot,
//! says why: it finds out by itself that an origin is back, asks no dead origin for more than a
//! probe, reads playlists that may not be stored, and shows how far it is inside a large file.

use std::fmt::Write;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::origin::Reply;
use crate::support::patience::within;
use crate::support::warmed::{Warmed, counts};
use crate::support::{
    Gate, Origin, Shield, ask, computed, eventually, get, manifest, noise, segment, status,
};

const MASTER: &str = "http://media.test/film/m.m3u8";
const OUT: Option<i32> = Some(3);

/// A playlist of this many segments.
fn film_of(segments: usize) -> String {
    let mut text = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n".to_owned();
    for number in 0..segments {
        let _ = write!(text, "#EXTINF:1,\n{number}.ts\n");
    }
    text + "#EXT-X-ENDLIST\n"
}

async fn film(segments: usize) -> Origin {
    let origin = Origin::start().await;
    let origin = origin.on("/film/m.m3u8", manifest(film_of(segments)));
    for number in 0..segments {
        origin.set_script(&format!("/film/{number}.ts"), segment("x"));
    }
    origin
}

#[tokio::test]
async fn origin_that_cannot_be_reached_is_named_with_its_own_exit_code() {
    let origin = film(3).await;
    let warmed = Warmed::in_front_of(&origin).await;
    origin.stop().await;
    // The second run begins with what the first has found out.
    for _ in 0..2 {
        let (summary, code) = warmed
            .summary_and_code(&format!("{MASTER} --wait-max 1s"))
            .await;
        let stopped = summary["stopped"].as_str().expect("a reason");
        let endpoint = format!("http://{}", origin.address());
        assert!(
            stopped.contains(&endpoint) && stopped.contains("unreachable"),
            "{summary}"
        );
        assert_eq!((code, &summary["complete"]), (OUT, &false.into()));
        assert_eq!(counts(&summary), (0, 0, 0, 0), "{summary}");
    }
    let text = warmed.run(&format!("{MASTER} --wait-max 0s")).await;
    assert_eq!(text.status.code(), OUT, "{text:?}");
}

/// No viewer comes: the run itself finds out that the origin is back.
#[tokio::test]
async fn run_goes_on_by_itself_when_the_origin_is_back() {
    let origin = film(3).await;
    let warmed = Warmed::in_front_of(&origin).await;
    origin.stop().await;
    let running = warmed.summary_and_code(MASTER);
    let back = async {
        let viewer = || get("/film/m.m3u8").host("media.test");
        // Proves nothing of the run; it only takes as long as the program needs to be out.
        let answer = warmed.program.viewer().await.ask(viewer()).await;
        assert!(answer.status >= 500, "{answer:?}");
        origin.resume();
    };
    let ((summary, code), ()) = tokio::join!(running, back);
    assert_eq!(
        (counts(&summary), code),
        ((4, 0, 0, 0), Some(0)),
        "{summary}"
    );
}

/// The breaker is open: a run sends the origin no more than probes, and goes on once one succeeds.
#[tokio::test]
async fn dead_origin_gets_probes_only() {
    // Failed responses open a breaker only if they come from several directories.
    let names: Vec<_> = (0..40).map(|n| format!("{}/{n}.ts", n % 4)).collect();
    let text = names.iter().map(|name| format!("#EXTINF:1,\n{name}\n"));
    let text: String = text.collect();
    let text = format!("#EXTM3U\n#EXT-X-TARGETDURATION:1\n{text}#EXT-X-ENDLIST\n");
    let origin = Origin::start().await.on("/film/m.m3u8", manifest(text));
    let script = |script: fn() -> Reply| {
        for name in &names {
            origin.set_script(&format!("/film/{name}"), script());
        }
    };
    script(|| status(503));
    let breaker = "[origin.breaker]\nerror_share = 0.5\nfailed_urls_min = 4";
    let warmed = Warmed::with(&origin, breaker).await;
    let (summary, code) = warmed
        .summary_and_code(&format!("{MASTER} --wait-max 3s --concurrency 1"))
        .await;
    assert_eq!(code, OUT, "{summary}");
    let stopped = summary["stopped"].as_str().expect("a reason");
    assert!(stopped.contains("breaker open"), "{summary}");
    // Four URLs open the breaker. Then HEAD requests, one at a time.
    let requests = names
        .iter()
        .flat_map(|name| origin.requests(&format!("/film/{name}")));
    let (probes, gets): (Vec<_>, Vec<_>) = requests.partition(|request| request.method == "HEAD");
    assert!((1..9).contains(&probes.len()), "{} probes", probes.len());
    assert!(gets.len() <= 8, "{} requests", gets.len());
    script(|| segment("x"));
    eventually("a run to succeed", async || {
        warmed.summary_and_code(MASTER).await.1 == Some(0)
    })
    .await;
}

#[tokio::test]
async fn objects_max_counts_what_is_fetched_so_a_second_run_goes_on() {
    let origin = film(9).await;
    let warmed = Warmed::in_front_of(&origin).await;
    let few = format!("{MASTER} --objects-max 4");
    let (summary, is_good) = warmed.summary(&few).await;
    assert_eq!((counts(&summary), is_good), ((4, 0, 0, 0), false));
    let (summary, is_good) = warmed.summary(&few).await;
    assert_eq!((counts(&summary), is_good), ((4, 4, 0, 0), false));
    let stopped = summary["stopped"].as_str().expect("a reason");
    assert!(stopped.contains("4 objects are fetched"), "{stopped}");
    let (summary, is_good) = warmed.summary(&few).await;
    assert_eq!(
        (counts(&summary), is_good),
        ((2, 8, 0, 0), true),
        "{summary}"
    );
}

/// Neither a private multivariant playlist nor a private playlist ends the walk, the second time as
/// well.
#[tokio::test]
async fn playlists_that_may_not_be_stored_are_walked() {
    let master = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=300\nsd/i.m3u8\n\
        #EXT-X-STREAM-INF:BANDWIDTH=900\nhd/i.m3u8\n";
    let origin = Origin::start()
        .await
        .on("/film/m.m3u8", manifest(master).cache_control("private"))
        .on(
            "/film/sd/i.m3u8",
            manifest(film_of(2)).cache_control("no-store"),
        )
        .on("/film/hd/i.m3u8", manifest(film_of(2)));
    for target in ["sd/0", "sd/1", "hd/0", "hd/1"] {
        origin.set_script(&format!("/film/{target}.ts"), segment("x"));
    }
    let warmed = Warmed::in_front_of(&origin).await;
    let (summary, is_good) = warmed.summary(MASTER).await;
    assert_eq!(
        (counts(&summary), is_good),
        ((5, 0, 0, 0), true),
        "{summary}"
    );
    assert_eq!(summary["uncacheable"], 2, "{summary}");
    assert_eq!(origin.hits("/film/m.m3u8"), 1, "one request was enough");
    let (summary, is_good) = warmed.summary(MASTER).await;
    assert_eq!(
        (counts(&summary), is_good),
        ((0, 5, 0, 0), true),
        "{summary}"
    );
    assert_eq!(origin.hits("/film/m.m3u8"), 2);
}

/// What a playlist names is not known: that is no success.
#[tokio::test]
async fn playlist_that_cannot_be_read_fails_the_run() {
    let coded = manifest("no text").header("content-encoding", "unknown");
    let origin = Origin::start().await.on("/film/m.m3u8", coded);
    let warmed = Warmed::in_front_of(&origin).await;
    for _ in 0..2 {
        let (summary, code) = warmed.summary_and_code(MASTER).await;
        assert_eq!(
            (counts(&summary), code),
            ((0, 0, 1, 0), Some(1)),
            "{summary}"
        );
        let failure = summary["failures"][0].to_string();
        assert!(failure.contains("names"), "{summary}");
    }
}

/// A whole run that has fetched nothing because of its URL is no success.
#[tokio::test]
async fn url_that_no_route_serves_fails_the_run_and_says_why() {
    let origin = film(1).await;
    let routes = "[[route]]\nhosts = [\"media.test\"]\npath = \"/film\"\n\
        origin = \"only\"\n[[route]]\nhosts = [\"old.test\"]\npath = \"/\"\n\
        redirect = { to = \"http://media.test\" }\n";
    let warmed = Warmed::with(&origin, routes).await;
    for (url, reason) in [
        ("http://old.test/film/m.m3u8", "redirect"),
        ("http://elsewhere.test/film/m.m3u8", "no route"),
        ("http://media.test/other/m.m3u8", "no route"),
    ] {
        let (summary, code) = warmed.summary_and_code(url).await;
        assert_eq!(counts(&summary), (0, 0, 1, 0), "{summary}");
        assert_eq!(code, Some(1), "{summary}");
        assert_eq!(summary["failures"][0]["url"], url);
        let said = summary["failures"][0]["reason"].as_str().expect("a reason");
        assert!(said.contains(reason), "{summary}");
    }
    assert_eq!(warmed.summary_and_code(MASTER).await.1, Some(0));
}

/// The size of a slice here.
const SLICE: usize = 64 << 10;

/// An object of four slices.
fn sliced() -> Reply {
    let body = noise(1, 4 * SLICE);
    segment(bytes::Bytes::new()).etag("\"1\"").with_ranges(body)
}

/// `bytes_max` of a request ends it after the slice that reaches it.
#[tokio::test]
async fn one_step_of_a_large_object_ends_at_its_bytes() {
    let origin = Origin::start()
        .await
        .on("/a.ts", sliced())
        .on("/b.ts", sliced());
    let shield = Shield::in_front_of(&origin)
        .proxy_settings(|settings| {
            settings.whole_fetch_max = SLICE as u64;
            settings.slice_bytes = SLICE as u64;
        })
        .start()
        .await;
    let step = async |urls: &str, bytes_max: usize| {
        let target = format!("/warm?{urls}&bytes_max={bytes_max}");
        let answer = shield.admin(ask("POST", &target)).await;
        let answer: Value = serde_json::from_str(answer.assert_200_text()).unwrap();
        let objects = answer["objects"].as_array().expect("a list").clone();
        let received = objects.iter().map(|object| object["received"].as_u64());
        (
            received.map(|bytes| bytes.expect("a count")).sum::<u64>(),
            objects,
        )
    };
    let (one, both) = (
        "url=http://a.test/a.ts",
        "url=http://a.test/a.ts&url=http://a.test/b.ts",
    );
    let slice = SLICE as u64;
    let (received, objects) = step(one, 1).await;
    assert_eq!(
        (received, &objects[0]["outcome"]),
        (slice, &"busy".into()),
        "{objects:?}"
    );
    assert_eq!(
        step(both, SLICE).await.0,
        slice,
        "all objects of the step together"
    );
    assert_eq!(step(both, SLICE + 1).await.0, 2 * slice);
    let (received, objects) = step(both, 100 * SLICE).await;
    assert_eq!(received, 4 * slice, "{objects:?}");
    assert!(
        objects.iter().all(|object| object["outcome"] != "busy"),
        "{objects:?}"
    );
    for wrong in ["0", "x", "1KiB", "-1"] {
        let target = format!("/warm?{one}&bytes_max={wrong}");
        assert_eq!(
            shield.admin(ask("POST", &target)).await.status,
            400,
            "{wrong}"
        );
    }
}

/// At one KiB in a second the command waits for a minute after the first slice. It says so, and
/// asks for no more.
#[tokio::test]
async fn byte_rate_holds_inside_a_large_object_and_the_wait_is_shown() {
    let origin = Origin::start().await.on("/a.ts", sliced());
    let slices = "[fill]\nwhole_max = \"64KiB\"\nslice = \"64KiB\"";
    let warmed = Warmed::with(&origin, slices).await;
    let mut command = warmed.command("http://media.test/a.ts --byte-rate 1KiB");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let process = child.id().to_string();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let shown = tokio::task::spawn_blocking(move || lines.next().unwrap().unwrap());
    let shown = within("a line of the progress", shown).await.unwrap();
    assert!(shown.starts_with("0 of 1 known object,"), "{shown}");
    let asked = origin.hits("/a.ts");
    let interrupt = Command::new("kill").args(["-INT", &process]).status();
    assert!(interrupt.unwrap().success());
    let ended = tokio::task::spawn_blocking(move || child.wait_with_output()).await;
    let ended = ended.unwrap().unwrap();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    let text = String::from_utf8(ended.stdout).unwrap();
    assert!(text.contains("(65536 bytes)"), "{text}");
    // The object's first response, which is no slice, and one slice.
    assert!(asked <= 2, "{asked} requests");
}

#[test]
fn url_that_is_none_is_an_invalid_command_line() {
    for wrong in [
        "notaurl",
        "media.test/m.m3u8",
        "ftp://media.test/m.m3u8",
        "/m.m3u8",
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
        command.args(["warm", wrong, "--admin", "unix:/nowhere"]);
        let ended = command.output().unwrap();
        let text = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(2), "{text}");
        assert!(text.contains("absolute http or https URL"), "{text}");
    }
}

/// An object whose third slice does not come: what has come until then counts.
#[tokio::test]
async fn slices_count_while_the_object_is_not_complete() {
    let gate = Gate::new();
    let whole = sliced();
    let held = gate.clone();
    let script = computed(move |request| match request.header("range") {
        Some("bytes=131072-196607") => whole.clone().hold_head(&held),
        _ => whole.clone(),
    });
    let origin = Origin::start().await.on("/a.ts", script);
    let shield = Shield::in_front_of(&origin)
        .without_deadlines()
        .proxy_settings(|settings| {
            settings.whole_fetch_max = SLICE as u64;
            settings.slice_bytes = SLICE as u64;
        })
        .start()
        .await;
    let object = shield.warm("/a.ts").await;
    assert_eq!(object["outcome"], "busy", "{object}");
    // The slice that is being fetched counts once: no later step counts it again.
    assert_eq!(object["received"], 3 * SLICE, "{object}");
    gate.open();
    let object = shield.warm("/a.ts").await;
    let received = object["received"].as_u64().expect("a count");
    assert!(received <= SLICE as u64, "{object}");
    assert_eq!(object["bytes"], 4 * SLICE, "{object}");
}

#[test]
fn bandwidth_with_another_unit_is_refused_with_an_example() {
    let run = |bandwidth: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
        command.args(["warm", MASTER, "--bandwidth-max", bandwidth]);
        command
            .args(["--admin", "unix:/nowhere"])
            .stdin(Stdio::null());
        command.output().unwrap()
    };
    for wrong in ["5MB", "5MB/s", "fast", "5.5.5M"] {
        let ended = run(wrong);
        let text = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(2), "{text}");
        assert!(
            text.contains("bits per second") && text.contains("5000000") && text.contains("5M"),
            "{text}"
        );
    }
    for right in ["5000000", "5M", "800k"] {
        assert_eq!(run(right).status.code(), Some(1), "{right}: nobody answers");
    }
}
