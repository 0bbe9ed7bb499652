//! How often, and after which pause, something is tried again that may pass.
use std::time::Duration;

use super::Error;

const ATTEMPTS: u32 = 8;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// An API that wants to be left alone for longer is left alone for so long.
const LONGEST_TOLD: Duration = Duration::from_secs(300);

#[derive(Debug, Default)]
pub struct Patience {
    failures: u32,
}

impl Patience {
    /// Something went well: what fails after that begins anew.
    pub fn renew(&mut self) {
        self.failures = 0;
    }

    /// Waits, as long as the API asks for, or longer each time; or gives the error back: it does not pass, or has not passed.
    pub async fn bear(&mut self, error: Error) -> Result<(), Error> {
        let Error::Passing { said, after } = error else {
            return Err(error);
        };
        self.failures += 1;
        if self.failures >= ATTEMPTS {
            let said = format!("{said} (after {ATTEMPTS} attempts)");
            return Err(Error::Passing { said, after });
        }
        let pause = match after {
            Some(told) => told.min(LONGEST_TOLD),
            None => (FIRST_PAUSE * 2u32.pow(self.failures - 1)).min(LONGEST_PAUSE),
        };
        tracing::info!(%said, ?pause, "the Storage API is asked again");
        // A pause between attempts, not a wait for something: the API needs time to come back.
        tokio::time::sleep(pause).await;
        Ok(())
    }
}
