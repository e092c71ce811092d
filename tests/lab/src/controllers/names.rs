//! Names as Kubernetes makes them: hashes, random suffixes, UIDs.

use anyhow::Result;

use crate::ground::random_hex;

/// Letters and digits that make no words: no vowels, nothing that looks like
/// another (apimachinery's `rand.SafeEncodeString`).
const SAFE: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// The hash in a ReplicaSet's name, made from its pod template.
#[must_use]
pub fn template_hash(template: &serde_json::Value) -> String {
    let hash = template
        .to_string()
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        });
    hash.to_string().bytes().map(safe).collect()
}

/// The five letters at the end of a pod's name.
///
/// # Errors
/// If the kernel has no random numbers.
pub fn suffix() -> Result<String> {
    // Ten hexadecimal digits: two for each letter.
    let hex = random_hex(5)?;
    let pairs = hex.as_bytes().chunks_exact(2);
    Ok(pairs
        .map(|pair| safe(pair[0].wrapping_mul(31).wrapping_add(pair[1])))
        .collect())
}

/// A random UID (RFC 9562, version 4).
///
/// # Errors
/// If the kernel has no random numbers.
pub fn uid() -> Result<String> {
    let hex = random_hex(16)?;
    let variant = ["8", "9", "a", "b"][usize::from(hex.as_bytes()[16]) % 4];
    Ok(format!(
        "{}-{}-4{}-{variant}{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[13..16],
        &hex[17..20],
        &hex[20..]
    ))
}

fn safe(byte: u8) -> char {
    char::from(SAFE[usize::from(byte) % SAFE.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_follows_the_template() {
        let (a, b) = (serde_json::json!({"x": 1}), serde_json::json!({"x": 2}));
        assert_eq!(template_hash(&a), template_hash(&a));
        assert_ne!(template_hash(&a), template_hash(&b));
        assert!((8..=10).contains(&template_hash(&a).len()));
    }

    #[test]
    fn uids_have_the_right_shape_and_suffixes_the_right_letters() {
        let uid = uid().unwrap();
        let lengths: Vec<_> = uid.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert_eq!(uid.as_bytes()[14], b'4');
        let suffix = suffix().unwrap();
        assert_eq!(suffix.len(), 5);
        assert!(suffix.bytes().all(|byte| SAFE.contains(&byte)));
    }
}
