//! `ingestor conformance`: whether a receiver keeps what is asked of one.

use std::process::ExitCode;

use super::Format;
use crate::config::RawSettings;
use crate::conformance::{Report, Subject};

/// Tries whether a receiver keeps what the ingestor relies on, and says which promise it breaks.
///
/// It sends batches of tenants whose names begin with "conformance", as the settings would have them sent: give it those
/// of the server, and a receiver that may count them. The exit code is 0 if no promise was seen broken, 1 if one was.
#[derive(clap::Args, Clone)]
pub struct ConformanceArgs {
    /// Where batches are POSTed [default: API_URL_SENDER]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Where the receiver's sums can be read: GET answers an array of objects with tenant_id, product_sku, use_unit and
    /// used_amount, as the reference receiver's /totals does. Without it, only answers can be judged
    #[arg(long, value_name = "URL")]
    totals_url: Option<String>,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    settings: RawSettings,
}

/// Tries the receiver and prints what was found.
pub fn run(args: &ConformanceArgs) -> ExitCode {
    let mut settings = args.settings.clone();
    if let Some(url) = &args.url {
        settings.api_url_sender = Some(url.clone());
    }
    let outbox = match super::configure(&settings) {
        Ok(config) => config.outbox,
        Err(status) => return status,
    };
    let Some(receiver) = outbox.receiver else {
        eprintln!("ingestor: which receiver? give its --url, or set API_URL_SENDER");
        return ExitCode::from(super::USAGE_STATUS);
    };
    let public_url = receiver.public_url();
    let subject = Subject {
        url: receiver.url,
        totals_url: args.totals_url.clone(),
        authorization: receiver.authorization,
        signing_keys: receiver.signing_keys,
        amount_format: outbox.amount_format,
        timeout: receiver.timeout,
        batch_size: outbox.batch_size,
        concurrency: receiver.concurrency,
    };
    let report = Report::of(&subject, public_url);
    args.format.print(&report.document(), || report.to_text());
    if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
