//! The meta servers, each asked itself and all at once: one that does not answer costs no time.

use super::{ClientError, MetaClient, http_client, reason_of};
use crate::limits::{SURVEY_PAUSE, SURVEY_TIME, SURVEY_TIMEOUT};
use levee_proto::api::ClusterInfo;
use std::time::Instant;
use tokio::task::JoinSet;

/// What the meta servers say of themselves.
pub struct Survey {
    pub members: Vec<Surveyed>,
}

/// One that was asked.
pub struct Surveyed {
    /// Its number, if it or another one has told.
    pub id: Option<u64>,
    pub url: String,
    /// Or why there is none.
    pub answer: Result<ClusterInfo, String>,
}

impl Survey {
    /// What the member says that knows most.
    pub fn best(&self) -> Option<&ClusterInfo> {
        let answers = self.members.iter().filter_map(|member| member.answer.as_ref().ok());
        answers.max_by_key(|info| (info.leader.is_some(), info.applied))
    }

    /// Who leads; nobody if the one that others name says itself that most do not follow it.
    pub fn leader(&self) -> Option<u64> {
        let leader = self.best()?.leader?;
        let answers = self.members.iter().filter_map(|member| member.answer.as_ref().ok());
        let own = answers.into_iter().find(|info| info.member == leader);
        own.is_none_or(|info| info.leaderless_ms.is_none()).then_some(leader)
    }
}

impl MetaClient {
    /// Asks the servers that are known, and those that they name. While they are choosing a leader it is worth a moment.
    pub async fn survey(&self) -> Survey {
        let begun = Instant::now();
        loop {
            let survey = self.look_round().await;
            if survey.leader().is_some() || survey.best().is_none() || begun.elapsed() >= SURVEY_TIME {
                return survey;
            }
            tokio::time::sleep(SURVEY_PAUSE).await;
        }
    }

    /// That no server answered.
    pub fn nobody_answers(&self, survey: &Survey) -> ClientError {
        let silent = survey.members.iter().filter_map(|m| Some((&m.url, m.answer.as_ref().err()?.clone())));
        self.unreachable(&silent.collect::<Vec<_>>())
    }

    async fn look_round(&self) -> Survey {
        let mut survey = Survey { members: ask(self.urls.clone()).await };
        let Some(best) = survey.best().cloned() else { return survey };
        let named = best.members.iter().map(|member| member.url.trim_end_matches('/').to_string());
        let others = named.filter(|url| survey.members.iter().all(|asked| asked.url != *url)).collect();
        survey.members.extend(ask(others).await);
        for asked in &mut survey.members {
            let named = best.members.iter().find(|member| member.url.trim_end_matches('/') == asked.url);
            asked.id = asked.answer.as_ref().ok().map(|info| info.member).or(named.map(|member| member.id));
        }
        // One may be known by several addresses.
        let answers: Vec<u64> = survey.members.iter().filter(|m| m.answer.is_ok()).filter_map(|m| m.id).collect();
        survey.members.retain(|m| m.answer.is_ok() || m.id.is_none_or(|id| !answers.contains(&id)));
        survey.members.sort_by_key(|member| (member.id, member.url.clone()));
        survey.members.dedup_by_key(|member| member.id.ok_or_else(|| member.url.clone()));
        survey
    }

    /// Which server the first request goes to: of several the first one that answers and knows a leader.
    pub(super) async fn first_to_ask(&self) -> usize {
        if let Some(known) = self.preferred.get() {
            return known;
        }
        let mut found = 0;
        if self.urls.len() > 1 {
            let mut asked = begin(self.urls.iter().cloned().enumerate());
            while let Some(Ok((index, _, answer))) = asked.join_next().await {
                if answer.is_ok_and(|info| info.leader.is_some()) {
                    found = index;
                    break;
                }
            }
        }
        self.preferred.set(Some(found));
        found
    }
}

type Asked = JoinSet<(usize, String, Result<ClusterInfo, String>)>;

fn begin(urls: impl Iterator<Item = (usize, String)>) -> Asked {
    let http = http_client();
    let mut asked = JoinSet::new();
    for (index, url) in urls {
        let request = http.get(format!("{url}/v1/cluster")).timeout(SURVEY_TIMEOUT);
        asked.spawn(async move {
            let answer = async {
                let response = request.send().await.map_err(|e| reason_of(&e))?;
                match response.status().is_success() {
                    true => response.json().await.map_err(|e| reason_of(&e)),
                    false => Err(format!("status {}", response.status())),
                }
            };
            let answer = answer.await;
            (index, url, answer)
        });
    }
    asked
}

async fn ask(urls: Vec<String>) -> Vec<Surveyed> {
    let answers = begin(urls.into_iter().enumerate()).join_all().await;
    answers.into_iter().map(|(_, url, answer)| Surveyed { id: None, url, answer }).collect()
}
