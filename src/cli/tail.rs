//! `tablecast tail`: a topic's records as JSON lines.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use rdkafka::message::{Message, OwnedMessage};

use super::Global;
use super::exit::{Exit, Failure};
use super::output::Lines;
use super::record::Decoder;
use super::run::runtime;
use crate::avro::Registry;
use crate::connector::supervisor::kafka_connection;
use crate::kafka::KafkaFault;
use crate::kafka::reader::Reader;
use crate::shutdown::Shutdown;

const EXAMPLES: &str = "\
Only committed records are read. Without --follow it ends where the topic ends now.

Examples:
  tablecast tail shop.public.users                        every record, from the beginning
  tablecast tail shop.public.users --view                 the live rows: the newest record of each key
  tablecast tail shop.public.users --follow --from-end    what changes from now on
  tablecast tail shop.public.users --limit 1 | jq .value";

/// Arguments of `tablecast tail`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The topic
    pub topic: String,
    /// Fold the records to the live rows: the newest record of each key, without tombstones
    #[arg(long)]
    pub view: bool,
    /// Wait for more when the end is reached
    #[arg(long, conflicts_with = "view")]
    pub follow: bool,
    /// Start with the oldest record: the default
    #[arg(long, conflicts_with = "from_end")]
    pub from_beginning: bool,
    /// Start with what comes from now on
    #[arg(long, requires = "follow")]
    pub from_end: bool,
    /// End after so many lines
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
}

/// Writes the records to stdout.
pub fn run(args: &Args, global: &Global) -> Result<Exit, Failure> {
    let config = global.load()?;
    let connection = kafka_connection(&config);
    let runtime = runtime()?;
    let registry = Registry::new(&config.registry.url)?;
    let mut decoder = Decoder::new(registry, runtime.handle().clone());
    let shutdown = args.follow.then(|| runtime.block_on(async { Shutdown::on_signals() })).transpose()?;
    let reader =
        if args.from_end { Reader::at_end(&connection, &args.topic) } else { Reader::new(&connection, &args.topic) };
    let mut reader = reader.map_err(|fault| unreadable(fault, &args.topic))?;
    let mut lines = Lines::new(args.limit);
    match shutdown {
        Some(shutdown) => follow(&mut reader, &shutdown, &mut decoder, &mut lines)?,
        None if args.view => view(&mut reader, &mut decoder, &mut lines)?,
        None => all(&mut reader, &mut decoder, &mut lines)?,
    }
    lines.flush()?;
    Ok(Exit::Done)
}

fn unreadable(fault: KafkaFault, topic: &str) -> Failure {
    if !fault.is_missing_topic() {
        return fault.into();
    }
    let remedy = "`tablecast status` lists the topics of the tables";
    Failure::Work(format!("Kafka has no topic {topic:?}; {remedy}").into())
}

/// Every record up to where the topic ends now.
fn all(reader: &mut Reader, decoder: &mut Decoder, lines: &mut Lines) -> Result<(), Failure> {
    let mut failure = None;
    reader.read_to_end(|message| {
        let written = decoder.line(message).map_err(Failure::from).and_then(|line| lines.write(&line));
        written.unwrap_or_else(|error| {
            failure = Some(error);
            false
        })
    })?;
    failure.map_or(Ok(()), Err)
}

/// Every record as it comes, until the process is asked to end.
fn follow(reader: &mut Reader, shutdown: &Shutdown, decoder: &mut Decoder, lines: &mut Lines) -> Result<(), Failure> {
    while !shutdown.is_requested() {
        let Some(message) = reader.next_record()? else { continue };
        let more = lines.write(&decoder.line(&message)?)?;
        lines.flush()?;
        if !more {
            break;
        }
    }
    Ok(())
}

/// The newest record of each key, in the order in which the keys came first. A row that was deleted and came back is a
/// new one. Memory: the bytes of the live rows.
fn view(reader: &mut Reader, decoder: &mut Decoder, lines: &mut Lines) -> Result<(), Failure> {
    let mut rows: HashMap<Option<Vec<u8>>, (u64, OwnedMessage)> = HashMap::new();
    let mut next = 0;
    reader.read_to_end(|message| {
        let key = message.key().map(<[u8]>::to_vec);
        if message.payload().is_none() {
            rows.remove(&key);
            return true;
        }
        next += 1;
        match rows.entry(key) {
            Entry::Occupied(mut row) => row.get_mut().1 = message.detach(),
            Entry::Vacant(gap) => {
                gap.insert((next, message.detach()));
            }
        }
        true
    })?;
    let mut rows: Vec<_> = rows.into_values().collect();
    rows.sort_unstable_by_key(|(first, _)| *first);
    for (_, message) in rows {
        if !lines.write(&decoder.line(&message)?)? {
            break;
        }
    }
    Ok(())
}
