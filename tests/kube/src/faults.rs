//! What API servers do on bad days, to see what their clients do then. A crash
//! is [`ApiServer::kill`] and [`ApiServer::restart`].

use anyhow::Result;

use crate::apiserver::ApiServer;

impl ApiServer {
    /// Stops it in the middle of what it does: connections stay, nothing is
    /// answered.
    ///
    /// # Errors
    /// If it cannot be signalled.
    pub fn pause(&self) -> Result<()> {
        self.process().pause()
    }

    /// Lets it go on after [`Self::pause`].
    ///
    /// # Errors
    /// If it cannot be signalled.
    pub fn resume(&self) -> Result<()> {
        self.process().resume()
    }
}
