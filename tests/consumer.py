"""Reads topics as any consumer in Python would: confluent-kafka with its AvroDeserializer, no settings of its own.

usage: consumer.py TOPIC...      (TABLECAST_KAFKA and TABLECAST_REGISTRY say where)

One JSON object a topic: how many records, and the first two values, each field as Python shows it.
"""

import json
import os
import sys
from urllib.parse import urlsplit

from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext


def read(consumer, topic, deserialize):
    partitions = consumer.list_topics(topic, 10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    open_partitions = set(partitions)
    while open_partitions:
        message = consumer.poll(30)
        if message is None:
            raise TimeoutError(topic)
        if message.error() is None:
            key = deserialize(message.key(), SerializationContext(topic, MessageField.KEY))
            value = deserialize(message.value(), SerializationContext(topic, MessageField.VALUE))
            yield key, value
        elif message.error().code() == KafkaError._PARTITION_EOF:
            open_partitions.discard(message.partition())
        else:
            raise RuntimeError(message.error())


def shown(value):
    return {name: repr(field) for name, field in (value or {}).items()}


def main():
    url = os.environ["TABLECAST_REGISTRY"]
    assert urlsplit(url).hostname
    deserialize = AvroDeserializer(SchemaRegistryClient({"url": url}))
    consumer = Consumer(
        {
            "bootstrap.servers": os.environ["TABLECAST_KAFKA"],
            "group.id": "tests",
            "enable.partition.eof": True,
            "enable.auto.commit": False,
        }
    )
    for topic in sys.argv[1:]:
        records = list(read(consumer, topic, deserialize))
        values = [shown(value) for _, value in records[:2]] + [{}, {}]
        print(json.dumps({"topic": topic, "records": len(records), "first": values[0], "second": values[1]}))
    consumer.close()


main()
