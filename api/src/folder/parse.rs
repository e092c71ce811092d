//! The text of one file, to objects and refusals.

use std::path::Path;

use serde_json::Value;

use crate::object::{Object, ObjectKey, Rejected, Source};

/// Kinds that belong to no namespace. A kind that is not listed and names no
/// namespace is in `default`, as with `kubectl apply`.
const CLUSTER_WIDE: &[&str] = &[
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "DNSZone",
    "IPAllocation",
    "IPPool",
    "IngressClass",
    "Namespace",
    "Node",
    "PersistentVolume",
    "PriorityClass",
    "RuntimeClass",
    "StorageClass",
];

/// What one file holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parsed {
    /// The objects that could be read, in the order of the file.
    pub objects: Vec<Object>,
    /// The documents that could not.
    pub rejected: Vec<Rejected>,
}

/// Reads every document of a YAML or JSON text. `kind: List` is unfolded, and
/// empty documents are passed over.
#[must_use]
pub fn parse(file: &Path, text: &str) -> Parsed {
    let mut parsed = Parsed::default();
    for (line, document) in documents(text) {
        let source = Source {
            file: file.to_owned(),
            line,
        };
        match serde_saphyr::from_str::<Value>(document) {
            Ok(Value::Null) => {}
            Ok(value) => collect(&source, value, &mut parsed),
            Err(_) => parsed.rejected.push(unreadable(source, document)),
        }
    }
    parsed
}

/// Splits at lines that are a YAML document marker; yields each document with
/// the number of its first line. Splitting by text keeps one document's syntax
/// error from taking the rest of the file with it.
fn documents(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let (mut start, mut start_line, mut offset) = (0, 1, 0);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let is_marker = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        if is_marker {
            found.push((start_line, &text[start..offset]));
            start = offset + line.len();
            start_line = index + 2;
        }
        offset += line.len();
    }
    found.push((start_line, &text[start..]));
    found.retain(|(_, document)| has_content(document));
    for (line, document) in &mut found {
        *line += document.lines().take_while(|line| is_blank(line)).count();
    }
    found
}

fn has_content(document: &str) -> bool {
    document.lines().any(|line| !is_blank(line))
}

fn is_blank(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with('#')
}

fn collect(source: &Source, value: Value, parsed: &mut Parsed) {
    let text = |pointer: &str| {
        value
            .pointer(pointer)
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let missing = |object: Option<ObjectKey>, field: &str| Rejected {
        at: source.clone(),
        object,
        field: field.to_owned(),
        problem: "is missing, or is not text".to_owned(),
        mend: format!("write a Kubernetes object with {field}"),
    };
    let Some(kind) = text("/kind") else {
        parsed.rejected.push(missing(None, "kind"));
        return;
    };
    let namespace = text("/metadata/namespace");
    let key = ObjectKey {
        namespace: match namespace {
            _ if CLUSTER_WIDE.contains(&kind.as_str()) => String::new(),
            Some(namespace) => namespace,
            None => "default".to_owned(),
        },
        name: text("/metadata/name").unwrap_or_default(),
        kind,
    };
    let Some(api_version) = text("/apiVersion") else {
        parsed.rejected.push(missing(Some(key), "apiVersion"));
        return;
    };
    if key.kind == "List" {
        let Some(Value::Array(items)) = value.get("items") else {
            parsed.rejected.push(missing(Some(key), "items"));
            return;
        };
        for item in items {
            collect(source, item.clone(), parsed);
        }
        return;
    }
    if key.name.is_empty() {
        parsed.rejected.push(missing(Some(key), "metadata.name"));
        return;
    }
    parsed.objects.push(Object {
        key,
        api_version,
        source: source.clone(),
        value,
    });
}

fn unreadable(source: Source, document: &str) -> Rejected {
    // Read once more behind as many empty lines as stand before it in the
    // file, so that the error counts lines as an editor does.
    let first_content = document.lines().take_while(|line| is_blank(line)).count();
    let padded = "\n".repeat(source.line.saturating_sub(1 + first_content)) + document;
    let error = match serde_saphyr::from_str::<Value>(&padded) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    };
    // The first line says what and where; what follows quotes the text.
    let told = error.lines().next().unwrap_or_default();
    Rejected {
        at: source,
        object: None,
        field: String::new(),
        problem: format!(
            "cannot be read as YAML: {}",
            told.trim_start_matches("error: ")
        ),
        mend: "correct the document; the others in this file are served".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_text(text: &str) -> Parsed {
        parse(Path::new("shop.yaml"), text)
    }

    #[test]
    fn reads_every_document_with_its_line() {
        let parsed = parse_text(
            "# shop\n---\napiVersion: v1\nkind: Service\nmetadata: {name: cart, namespace: shop}\n\
             ---\n# nothing here\n---\napiVersion: v1\nkind: Node\nmetadata: {name: n1}\n",
        );
        assert_eq!(parsed.rejected, []);
        let told: Vec<_> = parsed
            .objects
            .iter()
            .map(|o| format!("{} {}", o.source, o.key))
            .collect();
        assert_eq!(
            told,
            ["shop.yaml:3 Service shop/cart", "shop.yaml:9 Node n1"]
        );
    }

    #[test]
    fn one_broken_document_takes_nothing_with_it() {
        let parsed = parse_text(
            "kind: [\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: p}\n---\njust text\n",
        );
        assert_eq!(parsed.objects.len(), 1);
        assert_eq!(parsed.objects[0].key.to_string(), "Pod default/p");
        let told: Vec<_> = parsed.rejected.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(
            told[0].starts_with("shop.yaml:1: cannot be read as YAML: "),
            "{}",
            told[0]
        );
        assert!(
            told[1].starts_with("shop.yaml:7: kind: is missing"),
            "{}",
            told[1]
        );
    }

    #[test]
    fn unfolds_lists_and_names_what_has_no_name() {
        let parsed = parse_text(
            "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Pod, metadata: {name: a}}\n\
             - {apiVersion: v1, kind: Pod, metadata: {}}\n",
        );
        assert_eq!(parsed.objects.len(), 1);
        let told = parsed.rejected[0].to_string();
        assert!(told.contains("metadata.name: is missing"), "{told}");
    }

    #[test]
    fn a_wrong_type_is_told_with_its_field() {
        #[derive(Debug, serde::Deserialize)]
        #[expect(dead_code, reason = "only read by serde")]
        struct Ports {
            spec: Vec<u16>,
        }
        let parsed = parse_text("apiVersion: v1\nkind: X\nmetadata: {name: a}\nspec: [1, oops]\n");
        let told = parsed.objects[0].decode::<Ports>().unwrap_err().to_string();
        assert!(
            told.starts_with("shop.yaml:1: X default/a: spec[1]: invalid type"),
            "{told}"
        );
    }

    #[test]
    fn a_marker_inside_a_block_of_text_is_not_a_document() {
        let parsed = parse_text(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  x: |\n    ---\n    y\n",
        );
        assert_eq!((parsed.objects.len(), parsed.rejected.len()), (1, 0));
    }
}
