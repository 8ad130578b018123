//! An independent S3 implementation accepts the signatures, however a path is spelt.

use std::path::Path;

use seawall_upstream::Endpoint;
use seawall_upstream::sign::{CredentialSource, Service, Sigv4};

use crate::support::bucket::Bucket;
use crate::support::{Origin, Shield, get, head};

/// A shield in front of the bucket, with these credentials.
async fn shield(bucket: &Bucket, credentials: &Path) -> Shield {
    let elsewhere = Origin::start().await;
    Shield::in_front_of(&elsewhere)
        .origin(|group| {
            group.endpoints = vec![Endpoint::new(
                false,
                bucket.address().ip().to_string(),
                bucket.address().port(),
            )];
            group.sigv4 = Some(Sigv4 {
                region: Some("us-east-1".to_owned()),
                service: Service::S3,
                sources: vec![CredentialSource::File {
                    path: credentials.to_owned(),
                    profile: "shield".to_owned(),
                }],
            });
        })
        .start()
        .await
}

#[tokio::test]
#[ignore = "needs moto, an S3 that checks signatures: see CONTRIBUTING.md"]
async fn s3_accepts_signed_requests_and_rejects_wrong_credentials() {
    const PLAYLIST: &str = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n";
    let objects = [("/live/index.m3u8", PLAYLIST), ("/live/seg~1.m4s", "odd")];
    let bucket = Bucket::start(&objects).await;
    let folder = tempfile::tempdir().unwrap();
    let [right, wrong] = [true, false].map(|right| {
        let path = folder.path().join(if right { "right" } else { "wrong" });
        std::fs::write(&path, bucket.credentials(right)).unwrap();
        path
    });
    let signing = shield(&bucket, &right).await;
    signing
        .get("/media/live/index.m3u8")
        .await
        .assert_is(200, PLAYLIST);
    // Escapes that stay escaped are unit-tested: some versions of moto decode paths before the
    // check.
    for spelling in ["seg~1.m4s", "seg%7E1.m4s", "%73eg%7e1%2Em4s?x=2&a=1&x=1"] {
        let target = format!("/media/live/{spelling}");
        signing.get(&target).await.assert_is(200, "odd");
    }
    let ranged = signing
        .ask(get("/media/live/index.m3u8").range("0-6"))
        .await;
    ranged.assert_is(206, "#EXTM3U");
    assert_eq!(
        signing.ask(head("/media/live/index.m3u8")).await.status,
        200
    );

    let forging = shield(&bucket, &wrong).await;
    assert_eq!(forging.get("/media/live/index.m3u8").await.status, 403);
}
