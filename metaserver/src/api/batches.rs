//! Many volumes by one request.
//!
//! Those that stand for themselves are cut into commands of a bounded size, so that others get their turn between them. Those
//! that are wanted all or not at all are one command.

use super::Failure;
use super::extract::{Answer, Body};
use crate::app::App;
use crate::capacity;
use crate::limits::BATCH_PIECE;
use crate::proposer::unexpected;
use axum::extract::State;
use levee_meta_state as state;
use levee_meta_state::Command;
use levee_meta_state::limits::MAX_BATCH_VOLUMES;
use levee_proto::api::*;
use std::sync::Arc;

/// Creates many volumes
///
/// Each by itself, or all of them or none. The answer has an item for each, in the order asked for.
#[utoipa::path(post, path = "/v1/volumes/batch", tag = "volumes", request_body = CreateVolumes,
    responses((status = 200, body = CreatedVolumes), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn create_volumes(
    State(app): State<Arc<App>>,
    Body(request): Body<CreateVolumes>,
) -> Result<Answer<CreatedVolumes>, Failure> {
    let CreateVolumes { volumes, atomic } = request;
    let count = volumes.len();
    if !(1..=MAX_BATCH_VOLUMES).contains(&count) {
        let detail = format!("{count} volumes in one batch: 1 to {MAX_BATCH_VOLUMES} are allowed");
        return Err(Failure::new(ProblemKind::Invalid, detail));
    }
    capacity::check(&app, || format!("{count} volumes cannot be created"))?;
    let piece = if atomic { count } else { BATCH_PIECE };
    let mut answer = CreatedVolumes::default();
    for volumes in volumes.chunks(piece) {
        let command = Command::CreateVolumes(CreateVolumes { volumes: volumes.to_vec(), atomic });
        match app.proposer.propose(command).await {
            Ok(state::Answer::Created(items)) => add(&mut answer, items),
            Ok(other) => return Err(unexpected(other).into()),
            Err(problem) => return Err(half_done(problem, &answer, count).into()),
        }
    }
    Ok(Answer(answer))
}

fn add(answer: &mut CreatedVolumes, items: Vec<CreatedVolume>) {
    let created = items.iter().filter(|item| item.id.is_some()).count();
    answer.created += u32::try_from(created).unwrap_or(u32::MAX);
    answer.refused += u32::try_from(items.len() - created).unwrap_or(u32::MAX);
    answer.items.extend(items);
}

/// Those that were created stay.
fn half_done(problem: Problem, answer: &CreatedVolumes, count: usize) -> Problem {
    if answer.items.is_empty() {
        return problem;
    }
    let detail = format!("{} of {count} volumes were created; then: {}", answer.created, problem.detail);
    Problem { detail, ..problem }
}
