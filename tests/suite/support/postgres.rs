//! A database of its own for each test, on the server of `TABLECAST_POSTGRES_URL`.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::runtime::Runtime;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use super::connector::variable;

/// A database that lives as long as the value, with its slots.
pub struct Database {
    pub name: String,
    runtime: Runtime,
    client: RefCell<Option<Rc<Client>>>,
    server: Config,
    server_url: String,
}

impl Database {
    pub fn create() -> Self {
        Self::create_on(&variable("TABLECAST_POSTGRES_URL"))
    }

    /// On another server.
    pub fn create_on(server_url: &str) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let server: Config = server_url.parse().unwrap();
        let name = format!("t{}_{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let admin = open(&runtime, &server);
        runtime.block_on(admin.batch_execute(&format!("CREATE DATABASE {name}"))).unwrap();
        let database = Self { name, runtime, client: RefCell::default(), server, server_url: server_url.to_owned() };
        database.reconnect();
        database
    }

    /// The connection parameters of this database, as the superuser.
    pub fn config(&self) -> Config {
        let mut config = self.server.clone();
        config.dbname(&self.name);
        config
    }

    /// The same as a URL.
    pub fn url(&self) -> String {
        let (server, _) = self.server_url.rsplit_once('/').unwrap();
        format!("{server}/{}", self.name)
    }

    /// Runs a future to its end; what it spawns lives as long as the database.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    pub fn execute(&self, sql: &str) {
        self.runtime.block_on(self.client().batch_execute(sql)).unwrap();
    }

    /// The first column of the first row, as text.
    pub fn query(&self, sql: &str) -> Option<String> {
        let messages = self.runtime.block_on(self.client().simple_query(sql)).unwrap();
        messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row.get(0)?.to_owned()),
            _ => None,
        })
    }

    /// Connects anew, after the server has been away.
    pub fn reconnect(&self) {
        *self.client.borrow_mut() = Some(Rc::new(open(&self.runtime, &self.config())));
    }

    fn client(&self) -> Rc<Client> {
        Rc::clone(self.client.borrow().as_ref().unwrap())
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.client.take();
        let name = &self.name;
        // A slot keeps its database, and its reader keeps the slot.
        let steps = [
            format!(
                "SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots \
                 WHERE database = '{name}' AND active_pid IS NOT NULL"
            ),
            format!("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = '{name}'"),
            format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"),
        ];
        let admin = open(&self.runtime, &self.server);
        for step in steps {
            // A test that failed has more to say than its clean-up.
            let _ = self.runtime.block_on(admin.batch_execute(&step));
        }
    }
}

fn open(runtime: &Runtime, config: &Config) -> Client {
    let (client, connection) = runtime.block_on(config.connect(NoTls)).unwrap();
    runtime.spawn(connection);
    client
}
