//! `tablecast schema`: the Avro schemas that tables get.

use serde::Serialize;

use super::exit::{Exit, Failure};
use super::ordered::Json;
use super::run::runtime;
use super::{Global, look, output};
use crate::avro::{EncoderError, Plan};
use crate::config::{Config, Connector, TablePattern};
use crate::connector::source;

const EXAMPLES: &str = "\
Tables are named as in SQL. Without any, all tables of the connector are shown.

Examples:
  tablecast schema shop
  tablecast schema shop public.users '\"Public\".\"Weird.Name\"'
  tablecast schema shop public.users --json | jq .value.schema";

/// Arguments of `tablecast schema`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The connector
    pub connector: String,
    /// Only these tables
    #[arg(value_name = "TABLE")]
    pub tables: Vec<TablePattern>,
    /// JSON, one object a table, for programs
    #[arg(long)]
    pub json: bool,
}

/// The schemas of a table, as it is now.
#[derive(Serialize)]
struct Schemas {
    /// As SQL writes it.
    table: String,
    topic: String,
    key: Subject,
    value: Subject,
}

#[derive(Serialize)]
struct Subject {
    subject: String,
    schema: Json,
}

/// Writes the schemas to stdout.
pub fn run(args: &Args, global: &Global) -> Result<Exit, Failure> {
    let config = global.load()?;
    let (connector, wanted) = select(&config, args)?;
    let schemas = runtime()?.block_on(look(connector, wanted))?;
    let texts = schemas.iter().map(|schemas| if args.json { serde_json::to_string(schemas) } else { human(schemas) });
    output::write(&texts.collect::<Result<Vec<_>, _>>()?.join(if args.json { "\n" } else { "\n\n" }))?;
    Ok(Exit::Done)
}

async fn look(connector: &Connector, wanted: &[TablePattern]) -> Result<Vec<Schemas>, Failure> {
    let control = look::source(connector).await.map_err(|error| Failure::of_connector(error, &connector.name))?;
    let (source, _) =
        source::find(&control, connector).await.map_err(|error| Failure::of_connector(error, &connector.name))?;
    let mut all = Vec::new();
    for table in look::wanted(connector, &source, wanted)? {
        let shape = source::shape(&control, table, &connector.publication)
            .await
            .map_err(|error| Failure::of_connector(error, &connector.name))?;
        let shape = shape.map_err(|error| Failure::of_connector(error, &connector.name))?;
        let plan = Plan::compile(&shape, &connector.name)
            .map_err(EncoderError::from)
            .map_err(|error| Failure::of_connector(error, &connector.name))?;
        all.push(Schemas {
            table: table.sql_name(),
            topic: table.topic.clone(),
            key: subject(&table.topic, "key", plan.key_schema())?,
            value: subject(&table.topic, "value", plan.value_schema())?,
        });
    }
    Ok(all)
}

fn subject(topic: &str, which: &str, schema: &str) -> Result<Subject, serde_json::Error> {
    Ok(Subject { subject: format!("{topic}-{which}"), schema: serde_json::from_str(schema)? })
}

fn human(schemas: &Schemas) -> Result<String, serde_json::Error> {
    let part =
        |of: &Subject| serde_json::to_string_pretty(&of.schema).map(|schema| format!("{}\n{schema}", of.subject));
    Ok(format!("-- {}\n{}\n{}", schemas.table, part(&schemas.key)?, part(&schemas.value)?))
}

/// The connector and the tables that are asked for: each of them must be one that the connector captures.
fn select<'c>(config: &'c Config, args: &'c Args) -> Result<(&'c Connector, &'c [TablePattern]), Failure> {
    let connector = config.connector(&args.connector)?;
    let is_captured = |pattern: &TablePattern| match pattern {
        TablePattern::Table { schema, name } => connector.mapping_for(schema, name).is_some(),
        TablePattern::Schema { schema } => connector.tables.iter().any(|mapping| match &mapping.pattern {
            TablePattern::Table { schema: captured, .. } | TablePattern::Schema { schema: captured } => {
                captured == schema
            }
        }),
    };
    if let Some(table) = args.tables.iter().find(|table| !is_captured(table)) {
        let captured: Vec<_> = connector.tables.iter().map(|mapping| mapping.pattern.to_string()).collect();
        let message =
            format!("connector `{}` does not capture {table}; it captures {}", connector.name, captured.join(", "));
        return Err(Failure::Call(message));
    }
    Ok((connector, &args.tables))
}
