//! A volume is deleted and another created by the same name, while the gateway of the first one does not hear of it.

use crate::faults;
use crate::meta::META;
use crate::world::World;
use levee_core::ports::Runtime;
use levee_core::reached;
use levee_meta_state::{Answer, Command};
use levee_proto::api::CreateVolume;
use std::time::Duration;

/// Deletes the volume of some guest and gives its name to a new one, with a guest of its own. Volumes with snapshots stay.
pub async fn strike(world: &World) {
    let Some(guest) = world.some_guest() else { return };
    let (name, id) = (guest.name().to_string(), guest.volume());
    let Some(volume) = world.meta().state().volume(id).cloned() else { return };
    let used = !volume.history().snapshots.is_empty() || volume.history().has_chores() || volume.parent.is_some();
    if used {
        return;
    }
    if let Some(device) = guest.device() {
        // It goes on meanwhile, and asks for chunks when it is back.
        world.net().cut(META, device.process.node);
        world.rt().sleep(world.some_time(50)).await;
    }
    let create = CreateVolume {
        name: name.clone(),
        size: volume.size,
        copies: volume.copies,
        min_copies: volume.min_copies,
        class: None,
    };
    let meta = world.meta();
    let gone = [Command::Detach { name: name.clone() }, Command::DeleteVolume { name: name.clone() }];
    if let Some(problem) = gone.iter().find_map(|command| meta.apply(command).err()) {
        return world.log(|| format!("{name} is not deleted: {}", problem.detail));
    }
    match meta.apply(&Command::CreateVolume(create)) {
        Ok(Answer::Volume(info)) => {
            reached!("a name was given to another volume");
            world.log(|| format!("{name} is volume {} now, no more {id}", info.id));
            world.replace_guest(&guest, info.id);
            faults::attach(world, &name);
        }
        // Too few nodes are in service for that: the cluster goes on without the volume.
        other => {
            world.log(|| format!("{name} is not created again: {other:?}"));
            world.retire_guest(&guest);
        }
    }
    world.rt().sleep(Duration::from_millis(1) + world.some_time(500)).await;
    world.net().heal();
}
