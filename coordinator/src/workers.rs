//! Work that is done side by side; the first that fails ends the others.
use tokio::task::JoinSet;

/// Runs `work` for every table, or whatever it is, `jobs` at once.
pub async fn each<I, F>(items: Vec<I>, jobs: usize, work: impl Fn(I) -> F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let mut workers = JoinSet::new();
    for item in items {
        if workers.len() >= jobs
            && let Some(ended) = workers.join_next().await
        {
            ended??;
        }
        workers.spawn(work(item));
    }
    join(workers).await
}

/// Waits for all workers; the first error ends the others.
pub async fn join(mut workers: JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    while let Some(ended) = workers.join_next().await {
        ended??;
    }
    Ok(())
}
