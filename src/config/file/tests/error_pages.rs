//! Tests of `[[error_page]]` and `[[route.error_page]]`.

use std::os::unix::fs::symlink;

use insta::assert_snapshot;

use super::*;
use http::StatusCode;

/// Reads this text beside files of all sorts.
fn read_in_folder(text: &str) -> (Option<Config>, String) {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &[u8]| std::fs::write(folder.path().join(name), text).unwrap();
    write("down.json", b"{}");
    write("largest", &vec![b'x'; 64 << 10]);
    write("too-large", &vec![b'x'; (64 << 10) + 1]);
    write("empty", b"");
    std::fs::create_dir(folder.path().join("folder")).unwrap();
    // Reading it would never end.
    symlink("/dev/zero", folder.path().join("device")).unwrap();
    let path = folder.path().join("seawall.toml");
    let finished = read(&format!("{ORIGIN}{text}"), &path, &environment).finish();
    let (config, problems) = match finished {
        Ok((config, problems)) => (Some(config), problems),
        Err(problems) => (None, problems),
    };
    (config, text_without_folder(&problems, folder.path()))
}

fn page(keys: &str) -> String {
    format!("[[error_page]]\n{keys}\n")
}

#[test]
fn pages_of_a_route_precede_those_for_all() {
    let (config, problems) = read_in_folder(
        "[[error_page]]\nstatuses = [\"4xx\", 503]\nfile = \"down.json\"\n\
         content_type = \"application/json\"\n[[route]]\n[[route.error_page]]\n\
         statuses = [503]\nfile = \"largest\"\ncontent_type = \"Text/Plain; charset=utf-8\"\n\
         [[route]]\nname = \"other\"\npath = \"/other\"\n",
    );
    let config = config.unwrap_or_else(|| panic!("{problems}"));
    assert_eq!(problems, "");
    let size = |pages: &ErrorPages, status: StatusCode| {
        let page = pages.page(status);
        page.map(|page| {
            (
                page.body.len(),
                page.content_type.to_str().unwrap().to_owned(),
            )
        })
    };
    let (json, text) = (
        "application/json".to_owned(),
        "Text/Plain; charset=utf-8".to_owned(),
    );
    let [other, first] = &config.rules.routes[..] else {
        panic!("two routes")
    };
    assert_eq!(&*other.name, "other");
    let general = [&other.error_pages, &config.proxy.error_pages];
    for pages in general {
        assert_eq!(
            size(pages, StatusCode::SERVICE_UNAVAILABLE),
            Some((2, json.clone()))
        );
        assert_eq!(size(pages, StatusCode::BAD_GATEWAY), None);
    }
    let pages = &first.error_pages;
    assert_eq!(
        size(pages, StatusCode::SERVICE_UNAVAILABLE),
        Some((64 << 10, text))
    );
    assert_eq!(size(pages, StatusCode::FORBIDDEN), Some((2, json)));
}

#[test]
fn mistakes_in_pages_are_shown_at_their_place() {
    const TYPE: &str = "content_type = \"application/json\"";
    let file = |name: &str| page(&format!("statuses = [503]\nfile = \"{name}\"\n{TYPE}"));
    let statuses = |list: &str| page(&format!("statuses = {list}\nfile = \"down.json\"\n{TYPE}"));
    let typed = |media_type: &str| {
        page(&format!(
            "statuses = [503]\nfile = \"down.json\"\ncontent_type = \"{media_type}\""
        ))
    };
    let inputs = [
        page(""),
        file("missing"),
        file("folder"),
        file("device"),
        file("empty"),
        file("too-large"),
        statuses("[200]"),
        statuses("[304, 600]"),
        statuses("[\"3xx\"]"),
        statuses("[]"),
        statuses("503"),
        statuses("[404, 416]"),
        typed("json"),
        typed("text/html\\nX-Other: 1"),
        format!("{}{}", statuses("[403, 503]"), statuses("[\"5xx\", 503]")),
        page("statuses = [503]\nbody = \"down\""),
    ];
    let texts = inputs.map(|input| {
        let (_, problems) = read_in_folder(&input);
        beside_its_input(&input, &problems)
    });
    assert_snapshot!(texts.join("\n\n"));
}
