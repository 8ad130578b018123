//! Reads the shield's own metrics.

use std::net::SocketAddr;

use seawall::telemetry::Outcome;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What `/metrics` said at one moment.
pub struct MetricsPage(String);

impl MetricsPage {
    /// Requests it.
    pub async fn fetch(admin: SocketAddr) -> std::io::Result<MetricsPage> {
        let mut wire = TcpStream::connect(admin).await?;
        let request =
            format!("GET /metrics HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
        wire.write_all(request.as_bytes()).await?;
        let mut page = String::new();
        wire.read_to_string(&mut page).await?;
        Ok(MetricsPage(page))
    }

    /// The sum of a metric over the series that have all these labels, written `name="value"`.
    pub fn sum(&self, name: &str, labels: &[String]) -> u64 {
        let lines = self.0.lines().filter(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with([' ', '{']))
        });
        let lines = lines.filter(|line| labels.iter().all(|label| line.contains(label)));
        let values = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok());
        values.sum()
    }

    /// Responses to viewers with this outcome and these labels.
    pub fn responses(&self, outcome: Outcome, labels: &[String]) -> u64 {
        let labels = [labels, &[format!("outcome=\"{}\"", outcome.as_str())]].concat();
        self.sum("seawall_requests_total", &labels)
    }
}
