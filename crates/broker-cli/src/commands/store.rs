//! `broker store`: what is set of the whole store, and how full it is.

use broker_core::StoreState;
use serde_json::Value;

use crate::args::StoreCommand;
use crate::config::Config;
use crate::connect::once;
use crate::exit::{Exit, Failure};
use crate::facts::{Fact, Facts, put_json, put_lines};
use crate::output;
use crate::settings::store_change;
use crate::signals::Stop;

/// Runs the command.
pub(crate) async fn run(
    config: &Config,
    command: StoreCommand,
    mut stop: Stop,
) -> Result<(), Failure> {
    match command {
        StoreCommand::Info(args) => {
            once(config, &mut stop, async |client| {
                let state = client.store_settings().await?;
                let status = parsed(&client.status().await?)?;
                let mut facts = usage(&status);
                facts.extend(settings(&state));
                print(&facts, args.json)
            })
            .await
        }
        StoreCommand::Set(args) => {
            let change = store_change(&args)?;
            once(config, &mut stop, async |client| {
                let expected = args.keep.if_version;
                let state = client.change_store_settings(&change, expected).await?;
                if args.json {
                    print(&settings(&state), true)
                } else {
                    Ok(())
                }
            })
            .await
        }
    }
}

/// The broker's status.
pub(super) fn parsed(status: &str) -> Result<Value, Failure> {
    serde_json::from_str(status).map_err(|error| {
        Failure::new(
            Exit::Protocol,
            format!("the broker's status is not JSON: {error}"),
        )
    })
}

fn print(facts: &Facts<'_>, json: bool) -> Result<(), Failure> {
    let mut out = output::stdout();
    if json {
        put_json(facts, out.buffer());
    } else {
        put_lines(facts, out.buffer());
    }
    Ok(out.flush()?)
}

/// Of the status what belongs to the settings. What the broker does not say is left out.
fn usage(status: &Value) -> Facts<'_> {
    let space = status.get("space").unwrap_or(&Value::Null);
    let facts = [
        ("store", text(status, "store")),
        ("rooms", number(status, "rooms").map(Fact::Number)),
        ("log_bytes", number(space, "log_bytes").map(Fact::Bytes)),
        ("fullness", text(space, "fullness")),
    ];
    let known = facts.into_iter();
    known
        .filter_map(|(name, fact)| Some((name, fact?)))
        .collect()
}

fn text<'a>(object: &'a Value, key: &str) -> Option<Fact<'a>> {
    object.get(key).and_then(Value::as_str).map(Fact::Text)
}

fn number(object: &Value, key: &str) -> Option<u64> {
    object.get(key).and_then(Value::as_u64)
}

fn settings(state: &StoreState) -> Facts<'static> {
    let settings = &state.settings;
    vec![
        ("version", Fact::Number(state.version)),
        ("keep_age", Fact::Age(settings.retention.age)),
        ("keep_bytes", Fact::BytesLimit(settings.retention.bytes)),
        ("keep_count", Fact::Limit(settings.retention.count)),
        ("max_bytes", Fact::BytesLimit(settings.bytes_max)),
        ("room_max_bytes", Fact::BytesLimit(settings.room_bytes_max)),
        ("cursor_idle", Fact::Age(settings.cursor_idle)),
    ]
}
