//! What lies at the edge: arrays within arrays, values that no Avro type holds, labels that change, large values.
