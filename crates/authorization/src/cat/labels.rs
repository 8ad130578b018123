//! The labels of claims (IANA, CBOR Web Token Claims; CTA-5007-B).

pub(super) const ISS: i64 = 1;
pub(super) const SUB: i64 = 2;
pub(super) const AUD: i64 = 3;
pub(super) const EXP: i64 = 4;
pub(super) const NBF: i64 = 5;
pub(super) const IAT: i64 = 6;
pub(super) const CTI: i64 = 7;
pub(super) const CATREPLAY: i64 = 308;
pub(super) const CATV: i64 = 310;
pub(super) const CATNIP: i64 = 311;
pub(super) const CATU: i64 = 312;
pub(super) const CATM: i64 = 313;
pub(super) const CATALPN: i64 = 314;
pub(super) const CATR: i64 = 323;

/// The names of all, also of those that are not evaluated.
pub(super) const NAMES: [(i64, &str); 26] = [
    (ISS, "iss"),
    (SUB, "sub"),
    (AUD, "aud"),
    (EXP, "exp"),
    (NBF, "nbf"),
    (IAT, "iat"),
    (CTI, "cti"),
    (8, "cnf"),
    (282, "geohash"),
    (CATREPLAY, "catreplay"),
    (309, "catpor"),
    (CATV, "catv"),
    (CATNIP, "catnip"),
    (CATU, "catu"),
    (CATM, "catm"),
    (CATALPN, "catalpn"),
    (315, "cath"),
    (316, "catgeoiso3166"),
    (317, "catgeocoord"),
    (318, "catgeoalt"),
    (319, "cattpk"),
    (320, "catifdata"),
    (321, "catdpop"),
    (322, "catif"),
    (CATR, "catr"),
    (324, "cattprint"),
];
