//! Many volumes at once: clones of a snapshot, and deletions.
//!
//! A request is cut into commands of a bounded size, so that others get their turn between them.

use super::Failure;
use super::extract::{Answer, Body};
use crate::app::App;
use crate::capacity;
use crate::proposer::unexpected;
use crate::request::is_repeated;
use axum::extract::State;
use axum::http::StatusCode;
use levee_meta_state as state;
use levee_meta_state::Command;
use levee_meta_state::limits::{MAX_FAMILY_PER_COMMAND, MAX_REFUSALS};
use levee_proto::api::*;
use std::sync::Arc;

/// Creates volumes that continue from a snapshot; no data is copied
#[utoipa::path(post, path = "/v1/clones", tag = "volumes", request_body = CreateClones,
    responses((status = 201, body = CreatedClones), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn create_clones(
    State(app): State<Arc<App>>,
    Body(request): Body<CreateClones>,
) -> Result<(StatusCode, Answer<CreatedClones>), Failure> {
    let all = request.names.clone();
    check_count(u64::from(all.len()))?;
    capacity::check(&app, || format!("clone '{}' cannot be created", shown_name(&all.name)))?;
    if all.len() > MAX_FAMILY_PER_COMMAND {
        // All of them or none, if it is known beforehand.
        if !is_repeated() {
            app.replicated.read(|state| state.check_room_for(&request))?;
        }
    }
    let mut created: Option<CreatedClones> = None;
    for names in pieces(&all) {
        let command = Command::CreateClones(CreateClones { names, ..request.clone() });
        match app.proposer.propose(command).await {
            Ok(state::Answer::Cloned(more)) => created = Some(join(created, more)),
            Ok(other) => return Err(unexpected(other).into()),
            Err(problem) => return Err(half_done(problem, created.as_ref(), &all).into()),
        }
    }
    let created = created.ok_or_else(|| Failure::new(ProblemKind::Invalid, "0 volumes asked for: 1 at least"))?;
    Ok((StatusCode::CREATED, Answer(created)))
}

fn join(before: Option<CreatedClones>, more: CreatedClones) -> CreatedClones {
    match before {
        None => more,
        Some(before) => CreatedClones { count: before.count + more.count, last: more.last, ..before },
    }
}

/// Those that were created stay.
fn half_done(problem: Problem, created: Option<&CreatedClones>, all: &Family) -> Problem {
    let Some(CreatedClones { count, first, last, .. }) = created else { return problem };
    let detail = format!("{} of {} clones were created, {first} to {last}; then: {}", count, all.len(), problem.detail);
    Problem { detail, ..problem }
}

/// Deletes volumes that are not attached, each by itself
#[utoipa::path(post, path = "/v1/deletions", tag = "volumes", request_body = DeleteVolumes,
    responses((status = 200, body = DeletedVolumes), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn delete(
    State(app): State<Arc<App>>,
    Body(request): Body<DeleteVolumes>,
) -> Result<Answer<DeletedVolumes>, Failure> {
    check_count(request.volumes.iter().map(|family| u64::from(family.len())).sum())?;
    let mut sum = DeletedVolumes::default();
    for volumes in commands(&request.volumes) {
        match app.proposer.propose(Command::DeleteVolumes(DeleteVolumes { volumes })).await? {
            state::Answer::Deleted(more) => {
                sum.deleted += more.deleted;
                sum.refusals += more.refusals;
                sum.refused.extend(more.refused);
                sum.refused.truncate(MAX_REFUSALS);
            }
            other => return Err(unexpected(other).into()),
        }
    }
    Ok(Answer(sum))
}

fn check_count(count: u64) -> Result<(), Failure> {
    if (1..=u64::from(MAX_FAMILY)).contains(&count) {
        return Ok(());
    }
    Err(Failure::new(ProblemKind::Invalid, format!("{count} volumes in one request: 1 to {MAX_FAMILY} are allowed")))
}

/// The family as families that fit a command each. A number that is too large is the state machine's to refuse.
fn pieces(family: &Family) -> impl Iterator<Item = Family> + '_ {
    (0..family.len()).step_by(MAX_FAMILY_PER_COMMAND as usize).map(|done| Family {
        name: family.name.clone(),
        count: family.count.map(|count| (count - done).min(MAX_FAMILY_PER_COMMAND)),
        first: family.first.saturating_add(done),
    })
}

/// What each command deletes.
fn commands(families: &[Family]) -> Vec<Vec<Family>> {
    let mut commands: Vec<(u32, Vec<Family>)> = Vec::new();
    for piece in families.iter().flat_map(pieces) {
        match commands.last_mut() {
            Some((count, batch)) if *count + piece.len() <= MAX_FAMILY_PER_COMMAND => {
                *count += piece.len();
                batch.push(piece);
            }
            _ => commands.push((piece.len(), vec![piece])),
        }
    }
    commands.into_iter().map(|(_, batch)| batch).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_cut_into_commands_without_a_gap() {
        let family = |name: &str, count| Family { name: name.into(), count: Some(count), first: 5 };
        let families = [Family::single("a"), family("b", 10_000), family("c", 3)];
        let cut = commands(&families);
        assert!(cut.iter().all(|batch| batch.iter().map(Family::len).sum::<u32>() <= MAX_FAMILY_PER_COMMAND));
        let names = |f: &[Family]| f.iter().flat_map(|f| f.names().collect::<Vec<_>>()).collect::<Vec<_>>();
        assert_eq!(names(&cut.concat()), names(&families));
        assert_eq!(cut.len(), 4);
    }
}
