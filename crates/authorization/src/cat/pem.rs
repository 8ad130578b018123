//! Reads a public key of the curve P-256 from PEM.

use data_encoding::BASE64;

const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const END: &str = "-----END PUBLIC KEY-----";

/// The DER of every `SubjectPublicKeyInfo` (RFC 5480) of this curve with an uncompressed point,
/// up to the point: id-ecPublicKey, prime256v1, a bit string of 66 bytes.
const DER: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const POINT_BYTES: usize = 65;
const UNCOMPRESSED: u8 = 4;

/// The uncompressed point. Whether it is on the curve shows at the first verification.
pub(super) fn p256_point(pem: &str) -> Option<Vec<u8>> {
    let (_, rest) = pem.split_once(BEGIN)?;
    let (text, _) = rest.split_once(END)?;
    let text: Vec<u8> = text
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    let der = BASE64.decode(&text).ok()?;
    let point = der.strip_prefix(&DER)?;
    let is_point = point.len() == POINT_BYTES && point[0] == UNCOMPRESSED;
    is_point.then(|| point.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From akamai/edgeworkers-examples, delivery/media/cat.
    const KEY: &str = "-----BEGIN PUBLIC KEY-----\n\
        MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAED5fNFnQYFBOjWa1ndpQK3ZrzXuHD\n\
        77oGDgPaMNbtZ7tjiJLobxq2qnfHznEk58Jj33sBVYc/L50SAuToJo1nvA==\n\
        -----END PUBLIC KEY-----\n";

    #[test]
    fn reads_a_key_that_openssl_writes() {
        let point = p256_point(KEY).unwrap();
        assert_eq!(&point[..3], [0x04, 0x0f, 0x97]);
        assert_eq!(point.len(), POINT_BYTES);
    }

    #[test]
    fn refuses_other_keys() {
        for pem in [
            "",
            "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE",
            &KEY.replace("PUBLIC", "PRIVATE"),
            &KEY.replace("MFkwEwYHKoZIzj0CAQY", "MFkwEwYHKoZIzj0CAQZ"),
            &KEY.replace("nvA==", "nv"),
        ] {
            assert_eq!(p256_point(pem), None, "{pem}");
        }
    }
}
