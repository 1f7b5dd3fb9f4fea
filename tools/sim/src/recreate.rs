//! A volume is deleted and another created by the same name, while the gateway of the first one does not hear of it.

use crate::faults;
use crate::guest::Guest;
use crate::meta::META;
use crate::process::Process;
use crate::world::World;
use levee_core::ports::Runtime;
use levee_core::reached;
use levee_meta_state::{Answer, Command};
use levee_proto::Epoch;
use levee_proto::api::{AllocateChunks, AttachmentId, CreateVolume};
use std::rc::Rc;
use std::time::Duration;

/// By then a volume is served, unless something is in the way.
const SOON_MS: u64 = 100;

/// Deletes the volume of some guest and gives its name to a new one, with a guest of its own; and often that one's once more: two volumes of one
/// name have had their first gateways then, at the same epoch. Volumes with snapshots stay.
pub async fn strike(world: &World) {
    let Some(guest) = world.some_guest() else { return };
    let Some(guest) = replace(world, guest).await else { return world.net().heal() };
    if world.one_in(4) {
        world.rt().sleep(Duration::from_millis(1) + world.some_time(500)).await;
        return world.net().heal();
    }
    until_served(world, &guest).await;
    let deposed = Late::of(world, &guest);
    if let Some(guest) = replace(world, guest).await {
        world.net().heal();
        until_served(world, &guest).await;
        if let Some(late) = deposed {
            late.arrive(world).await;
        }
    }
    world.net().heal();
}

async fn until_served(world: &World, guest: &Guest) {
    for _ in 0..SOON_MS {
        if guest.device().is_some() {
            return;
        }
        world.rt().sleep(Duration::from_millis(1)).await;
    }
}

/// What the gateway of a volume that is gone has asked for, and comes late.
struct Late {
    process: Rc<Process>,
    caller: AttachmentId,
    name: String,
    epoch: Epoch,
}

impl Late {
    fn of(world: &World, guest: &Guest) -> Option<Late> {
        let (device, volume) = (guest.device()?, guest.volume());
        let attachment = world.meta().state().volume(volume)?.attachment.as_ref()?.id;
        let caller = AttachmentId { volume, attachment };
        Some(Late { process: device.process.clone(), caller, name: guest.name().into(), epoch: device.epoch })
    }

    async fn arrive(self, world: &World) {
        let Late { process, caller, name, epoch } = self;
        let request = AllocateChunks { epoch, indexes: vec![0] };
        let alive = world.meta().alive();
        let allocate = Command::Allocate { name, request, alive, full: Default::default() };
        if let Ok(Answer::Allocated(_)) = world.meta().ask_as(&process, caller, allocate).await {
            world.fail("deposed", &format!("the gateway of volume {}, which is gone, got chunks", caller.volume));
        }
    }
}

/// The guest of the new volume, if there is one.
async fn replace(world: &World, guest: Guest) -> Option<Guest> {
    let (name, id) = (guest.name().to_string(), guest.volume());
    let volume = world.meta().state().volume(id).cloned()?;
    let used = !volume.history().snapshots.is_empty() || volume.history().has_chores() || volume.parent.is_some();
    if used {
        return None;
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
        world.log(|| format!("{name} is not deleted: {}", problem.detail));
        return None;
    }
    match meta.apply(&Command::CreateVolume(create)) {
        Ok(Answer::Volume(info)) => {
            reached!("a name was given to another volume");
            world.log(|| format!("{name} is volume {} now, no more {id}", info.id));
            let new = world.replace_guest(&guest, info.id);
            faults::attach(world, &name);
            Some(new)
        }
        // Too few nodes are in service for that: the cluster goes on without the volume.
        other => {
            world.log(|| format!("{name} is not created again: {other:?}"));
            world.retire_guest(&guest);
            None
        }
    }
}
