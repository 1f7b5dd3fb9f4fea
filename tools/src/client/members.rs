//! Requests about the meta servers themselves.

use super::{MetaClient, Result};
use levee_proto::api::*;
use reqwest::Method;

impl MetaClient {
    pub async fn members(&self) -> Result<Members> {
        self.call(Method::GET, "/v1/members", None::<&()>).await
    }

    pub async fn add_member(&self, request: &AddMember) -> Result<Members> {
        self.call(Method::POST, "/v1/members", Some(request)).await
    }

    /// An attempt that was repeated finds that the member is gone.
    pub async fn remove_member(&self, id: u64, force: bool) -> Result<Members> {
        let path = format!("/v1/members/{id}?force={force}");
        let mut repeated = false;
        match self.send_noting(Method::DELETE, &path, None::<&()>, &mut repeated).await {
            Err(error) if repeated && error.is(ProblemKind::NotFound) => self.members().await,
            answer => self.decode(&path, &answer?),
        }
    }

    /// Answers once it leads.
    pub async fn lead(&self, id: u64) -> Result<Members> {
        self.call(Method::POST, &format!("/v1/members/{id}/lead"), None::<&()>).await
    }

    pub async fn replace_member(&self, id: u64, request: &ReplaceMember, force: bool) -> Result<Members> {
        self.call(Method::POST, &format!("/v1/members/{id}/replace?force={force}"), Some(request)).await
    }
}
