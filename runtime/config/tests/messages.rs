//! What an operator reads when a region file is wrong: one golden file a mistake.

use std::collections::BTreeMap;

use model::RegionId;

/// The smallest file: version 1 without any of the optional keys.
const US_EAST: &str = "\
region:
  name: us-east-1
  primary: true
  services:
    api: https://api.example.org
    storage: s3://repomind-us-east
  capacity:
    min_instances: 10
    max_instances: 100
  features: [full-api, websockets, batch-processing]
";

const EU_WEST: &str = "\
version: 1
region:
  name: eu-west-1
  services: {api: https://eu.example.org, storage: s3://repomind-eu-west}
  capacity: {min_instances: 5, max_instances: 50}
";

const ALICE: &str = "ed25519:0101010101010101010101010101010101010101010101010101010101010101 alice";
const BOB: &str = "ed25519:0202020202020202020202020202020202020202020202020202020202020202";

fn tree(files: &[(&str, &str)]) -> BTreeMap<String, String> {
    files.iter().map(|(id, text)| (format!("region-config/{id}.yml"), (*text).to_owned())).collect()
}

/// All findings as they are drawn, of a tree that must be refused.
fn refused(files: &[(&str, &str)]) -> String {
    let findings = config::load_from(&tree(files)).expect_err("the tree is wrong");
    findings.iter().map(|finding| finding.render(false)).collect::<Vec<_>>().join("\n\n")
}

/// The findings after one change to the primary's file.
fn refused_after(from: &str, to: &str) -> String {
    assert!(US_EAST.contains(from), "{from} is not in the file");
    refused(&[("us-east", &US_EAST.replace(from, to)), ("eu-west", EU_WEST)])
}

macro_rules! golden {
    ($($name:ident: $shown:expr;)*) => {
        $(#[test] fn $name() { insta::assert_snapshot!($shown); })*
    };
}

golden! {
    an_unknown_key_is_shown_with_the_one_that_was_meant: refused_after("capacity:", "capacty:");
    a_key_like_no_other_is_shown_with_those_that_may_stand: refused_after("  primary: true", "  primary: true\n  colour: blue");
    a_wrong_type_is_named: refused_after("min_instances: 10", "min_instances: ten");
    text_where_a_truth_value_belongs_is_refused: refused_after("primary: true", "primary: \"true\"");
    a_scalar_where_a_mapping_belongs_is_refused: refused_after("features: [full-api, websockets, batch-processing]", "addresses: 8080");
    two_primaries_are_refused: refused(&[("us-east", US_EAST), ("eu-west", &EU_WEST.replace("  name", "  primary: true\n  name"))]);
    no_primary_is_refused: refused_after("primary: true", "primary: false");
    more_instances_at_least_than_at_most_are_refused: refused_after("min_instances: 10", "min_instances: 200");
    an_operator_without_a_key_is_refused: refused_after("  primary: true", "  primary: true\n  policies: {operators: [alice, \"ed25519:00 bob\"]}");
    an_operator_who_stands_twice_is_refused: refused_after("  primary: true", &format!("  primary: true\n  policies:\n    operators:\n      - {ALICE}\n      - {ALICE}2\n      - {BOB} alice"));
    an_empty_list_of_operators_is_refused: refused_after("  primary: true", "  primary: true\n  policies: {operators: []}");
    policies_without_operators_are_refused: refused_after("  primary: true", "  primary: true\n  policies: {operator: alice}");
    operators_that_one_file_lacks_are_refused: refused_after("  primary: true", &format!("  primary: true\n  policies: {{operators: [{ALICE}]}}"));
    other_operators_in_another_file_are_refused: refused(&[
        ("us-east", &format!("{US_EAST}  policies: {{operators: [{ALICE}, {BOB} bob]}}\n")),
        ("eu-west", &format!("{EU_WEST}  policies: {{operators: [{ALICE}]}}\n")),
    ]);
    a_bad_url_is_refused: refused_after("https://api.example.org", "api.example.org");
    a_bad_store_is_refused: refused_after("s3://repomind-us-east", "s3://Repomind");
    a_tree_without_regions_is_refused: refused(&[]);
    a_file_without_a_region_is_refused: refused(&[("us-east", "version: 1\n")]);
    an_empty_file_is_refused: refused(&[("us-east", US_EAST), ("eu-west", "")]);
    a_name_given_twice_is_refused: refused_after("us-east-1", "eu-west-1");
    a_syntax_error_is_placed: refused_after("[full-api, websockets, batch-processing]", "[full-api, websockets");
    two_regions_on_one_address_are_refused: refused_after("  primary: true", "  primary: true\n  addresses: {host: 127.0.2.1, dns: 5301}");
    two_doors_on_one_port_are_refused: refused_after("  primary: true", "  primary: true\n  addresses: {admin: 8080}");
    a_gateway_on_every_address_must_say_which_one_users_know: refused_after("  primary: true", "  primary: true\n  addresses: {gateway: \"0.0.0.0:80\"}");
    public_addresses_that_nobody_can_reach_are_refused: refused_after("  primary: true", "  primary: true\n  addresses: {public: [0.0.0.0, here, 192.0.2.1, 192.0.2.1]}");
    an_unknown_peer_is_refused: refused_after("  primary: true", "  primary: true\n  peers: [eu-wets, mars]");
    every_repeated_key_is_refused: refused_after("  primary: true", "  primary: true\n  \"name\": us-east-2\n  primary: false");
    a_name_outside_the_table_must_say_where_it_is: refused_after("name: us-east-1", "name: on-premises\n  country: DE");
    a_misspelt_cloud_region_is_shown_with_the_one_that_was_meant: refused_after("us-east-1", "us-esat-1");
    a_later_version_is_refused: refused(&[("us-east", US_EAST), ("eu-west", &EU_WEST.replace("version: 1", "version: 2"))]);
    a_second_document_is_refused: refused(&[("us-east", US_EAST), ("eu-west", &format!("{EU_WEST}---\n{EU_WEST}"))]);
    a_file_that_names_no_region_is_refused: refused(&[("us-east", US_EAST), ("EU", EU_WEST)]);
    a_feature_that_is_no_word_is_refused: refused_after("websockets", "Web Sockets");
    all_mistakes_of_all_files_are_shown_in_one_go: refused(&[
        ("us-east", &US_EAST.replace("min_instances: 10", "min_instances: 0").replace("https:", "ftp:").replace("name:", "nmae:")),
        ("eu-west", &EU_WEST.replace("max_instances: 50", "max_instances: 4")),
        ("ap-south", "region: [\n"),
    ]);
}

#[test]
fn the_smallest_file_is_enough_and_every_default_is_filled_in() {
    let regions = config::load_from(&tree(&[("us-east", US_EAST), ("eu-west", EU_WEST)])).unwrap();
    let (us, eu) = (RegionId::new("us-east").unwrap(), RegionId::new("eu-west").unwrap());
    assert_eq!(regions.primary, us);
    let first = &regions.by_id[&us];
    assert_eq!((first.country.as_str(), first.jurisdiction.as_str()), ("US", "US"));
    assert_eq!(first.coordinates.latitude, 39.04);
    assert_eq!(first.capacity.per_instance_rps, 100);
    assert_eq!(first.features.len(), 3);
    assert_eq!(first.data_dir.to_str(), Some("us-east"));
    assert_eq!(first.peers, [eu.clone()].into());
    // The primary comes first, then the others by id.
    assert_eq!(first.addresses.gateway.to_string(), "127.0.1.1:8080");
    let second = &regions.by_id[&eu].addresses;
    let doors = [second.gateway, second.admin, second.peer, second.dns].map(|door| door.to_string());
    assert_eq!(doors, ["127.0.2.1:8080", "127.0.2.1:9090", "127.0.2.1:7443", "127.0.2.1:5300"]);
}

#[test]
fn what_the_file_says_comes_before_the_defaults() {
    let text = EU_WEST.replace("name: eu-west-1", "name: cellar\n  country: uk\n  jurisdiction: IE\n  coordinates: {latitude: 51.5, longitude: -1}\n  addresses: {host: \"::1\", gateway: 80, dns: \"0.0.0.0:53\"}\n  data_dir: /srv/data\n  peers: []\n  features: [never-heard-of]");
    let regions = config::load_from(&tree(&[("us-east", US_EAST), ("cellar", &text)])).unwrap();
    let cellar = &regions.by_id["cellar"];
    assert_eq!((cellar.country.as_str(), cellar.jurisdiction.as_str()), ("GB", "IE"));
    assert_eq!(cellar.coordinates.longitude, -1.0);
    assert_eq!(cellar.addresses.gateway.to_string(), "[::1]:80");
    assert_eq!(cellar.addresses.dns.to_string(), "0.0.0.0:53");
    assert_eq!(cellar.addresses.public, [cellar.addresses.gateway.ip()]);
    assert_eq!(cellar.data_dir.to_str(), Some("/srv/data"));
    assert!(cellar.peers.is_empty());
    assert_eq!(cellar.features.len(), 1);
}

#[test]
fn users_are_sent_where_the_file_says_and_not_where_the_gateway_listens() {
    let text = EU_WEST.to_owned() + "  addresses: {gateway: \"0.0.0.0:80\", public: [192.0.2.1, \"2001:db8::1\"]}\n";
    let regions = config::load_from(&tree(&[("us-east", US_EAST), ("eu-west", &text)])).unwrap();
    let public = &regions.by_id["eu-west"].addresses.public;
    assert_eq!(*public, ["192.0.2.1".parse::<std::net::IpAddr>().unwrap(), "2001:db8::1".parse().unwrap()]);
}

#[test]
fn files_elsewhere_in_the_tree_are_not_looked_at() {
    let mut files = tree(&[("us-east", US_EAST), ("available/eu-west", "not: [yaml")]);
    files.insert("region-config/region-mapping.scm".to_owned(), "(define policy-api 1)".to_owned());
    assert_eq!(config::load_from(&files).unwrap().by_id.len(), 1);
}

#[test]
fn operators_who_are_the_same_in_all_files_are_sorted_by_name() {
    let operators =
        |text: &str, order: [&str; 2]| format!("{text}  policies:\n    operators: [{}]\n", order.join(", "));
    let bob = format!("{BOB} bob");
    let (east, west) = (operators(US_EAST, [ALICE, &bob]), operators(EU_WEST, [&bob, ALICE]));
    let regions = config::load_from(&tree(&[("us-east", &east), ("eu-west", &west)])).unwrap();
    let names: Vec<_> = regions.operators.iter().map(|operator| operator.name.as_str()).collect();
    assert_eq!(names, ["alice", "bob"]);
    assert!(config::load_from(&tree(&[("us-east", US_EAST)])).unwrap().operators.is_empty());
}
