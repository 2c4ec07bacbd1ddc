//! A key lands in the partition where a Java producer would put it, so topics can be joined with Kafka Streams.

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::message::Message;

use crate::support::connector::{Connector, variable};
use crate::support::topic;

const PARTITIONS: i32 = 7;

/// What `org.apache.kafka.common.utils.Utils` of Kafka 4.3.0 gives: `murmur2(key)` as unsigned, and
/// `toPositive(murmur2(key)) % 7`.
const VECTORS: [(&[u8], u32, i32); 11] = [
    (b"", 275_646_681, 2),
    (b"\x00", 375_494_588, 0),
    (b"a", 2_731_586_172, 5),
    (b"ab", 316_155_434, 0),
    (b"abc", 479_470_107, 4),
    (b"abcd", 2_971_317_748, 5),
    (b"kafka", 3_496_464_228, 3),
    (b"\x00\x00\x00\x00\x01\x02", 2_377_598_318, 2),
    (b"\x00\x00\x00\x00\x01\x80\x01", 578_405_283, 1),
    (b"\xff\xfe\xfd\xfc\xfb", 524_068_735, 1),
    (b"00000000-0000-4000-8000-000000000001", 3_600_471_038, 1),
];

/// Kafka's murmur2, after `Utils.murmur2` of its Java client.
fn murmur2(key: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mix = |word: u32| {
        let word = word.wrapping_mul(M);
        (word ^ (word >> 24)).wrapping_mul(M)
    };
    let mut hash = 0x9747_b28c ^ u32::try_from(key.len()).unwrap();
    let words = key.chunks_exact(4);
    let rest = words.remainder();
    for word in words {
        hash = hash.wrapping_mul(M) ^ mix(u32::from_le_bytes(word.try_into().unwrap()));
    }
    if !rest.is_empty() {
        for (index, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

fn partition(key: &[u8]) -> i32 {
    i32::try_from(murmur2(key) & 0x7fff_ffff).unwrap() % PARTITIONS
}

#[test]
fn the_judge_agrees_with_kafkas_own_partitioner() {
    for (key, hash, expected) in VECTORS {
        assert_eq!((murmur2(key), partition(key)), (hash, expected), "{}", key.escape_ascii());
    }
}

#[test]
fn every_key_is_in_the_partition_of_javas_partitioner() {
    let connector = Connector::of("CREATE TABLE t (id text PRIMARY KEY)");
    let name = connector.topic("t");
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", variable("TABLECAST_KAFKA")).create().unwrap();
    let new = NewTopic::new(&name, PARTITIONS, TopicReplication::Fixed(1)).set("cleanup.policy", "compact");
    let created = connector.database.block_on(admin.create_topics([&new], &AdminOptions::new())).unwrap();
    assert!(created.iter().all(Result::is_ok));
    let _daemon = connector.start_streaming();
    connector.database.execute("INSERT INTO t SELECT repeat('k', g % 9) || g FROM generate_series(1, 500) g");
    connector.records("t", 500);
    let mut used = [0; PARTITIONS as usize];
    topic::read_raw(&name, |message| {
        let key = message.key().unwrap();
        assert_eq!(message.partition(), partition(key), "{}", key.escape_ascii());
        used[usize::try_from(message.partition()).unwrap()] += 1;
    });
    assert!(used.iter().all(|count| *count > 0), "{used:?}");
}
