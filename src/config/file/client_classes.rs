//! Reads `[[client_class]]`: how clients are told apart, such as several CDNs.

use super::{access, rate_limits, read_tables};
use crate::config::problem::{Problem, SourceSpan};
use crate::config::toml_reader::TomlTable;
use crate::config::{address, read};
use seawall_policy::{ClientClass, ClientClasses, OTHER_CLASS};

/// Each class has counters in every thread.
const CLASSES_MAX: usize = 16;

/// Reads every class, in the order of the file: the first that has a client is its class.
pub(super) fn read_client_classes(root: &mut TomlTable<'_>) -> ClientClasses {
    let read: Vec<(ClientClass, SourceSpan)> =
        read_tables(root, "client_class", "[[client_class]]", read_class);
    for (index, (later, span)) in read.iter().enumerate() {
        let mut earlier = read[..index].iter();
        if let Some((_, first)) = earlier.find(|(class, _)| class.name == later.name) {
            let problem = Problem::new(format!("two client classes are called `{}`", later.name))
                .at(span.clone(), "the name again")
                .other(first.clone(), "the name first");
            root.reader().add_problem(problem);
        }
    }
    let certified = read.iter().filter(|(class, _)| class.certificate.is_some());
    access::report_unasked_classes(root, certified.map(|(_, span)| span));
    if let Some((_, span)) = read.get(CLASSES_MAX) {
        let problem = Problem::new(format!("there are more than {CLASSES_MAX} client classes"));
        root.reader()
            .add_problem(problem.at(span.clone(), "one too many"));
    }
    ClientClasses::of(read.into_iter().map(|(class, _)| class).collect())
}

fn read_class(table: &mut TomlTable<'_>) -> (ClientClass, SourceSpan) {
    let span = table.span();
    if table.value("name").is_none() {
        table.report_missing("name", "name = \"cloudfront\"");
    }
    let name_value = table.value("name");
    let name = table.get("name", read::parsed(address::name, "a name"));
    let name = name.unwrap_or_default();
    if let Some(value) = name_value.filter(|_| name == OTHER_CLASS) {
        let problem = Problem::new(format!("no client class can be called `{OTHER_CLASS}`"));
        let problem = problem.at(value.span(), "that of all other clients");
        table.reader().add_problem(problem);
    }
    let mut class = ClientClass::named(name, 0);
    let has_any = ["header", "addresses", "certificate"]
        .map(|key| table.value(key).is_some())
        .contains(&true);
    if !has_any {
        let example = "addresses = [\"192.0.2.0/24\"], or a header with a secret";
        table.report_missing("addresses", example);
    }
    let header = table.get("header", |value| {
        value.table("header", access::read_required_header)
    });
    class.header = header.flatten();
    table.read_some_into("addresses", &mut class.addresses, access::addresses);
    class.rate_limit = table.get("rate_limit", |value| {
        value.table("rate_limit", rate_limits::read_limit)
    });
    let certificate = &mut class.certificate;
    table.read_some_into("certificate", certificate, access::required_certificate);
    (class, span)
}
