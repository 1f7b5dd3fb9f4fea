//! Runs the plan against the device and the model.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::model::{Effect, Model, OperationId, Value};
use super::plan::{Ground, Kind, Step, next_step};
use super::report::{Report, millis};
use super::state::State;
use super::{Control, Options, pattern};
use crate::limits::{MAX_DATA, MAX_UNITS, MAX_WRITES_PER_UNIT, SLOTS_PER_QUEUE};
use crate::rng::{Rng, mix};
use levee_frontend::{Completion, FrontEnd, FrontEndOptions, Operation, Shape, Tag};

/// Longest sleep within a run: how late a stop or a stall is noticed.
const TICK: Duration = Duration::from_millis(100);
/// Attempts to find a place that is not too busy.
const PLAN_ATTEMPTS: usize = 16;

struct Pending {
    id: OperationId,
    step: Step,
    started: Instant,
    read_back: bool,
}

pub struct Engine<'o> {
    options: &'o Options,
    front: FrontEnd,
    model: Model,
    ground: Ground,
    rng: Rng,
    key: u64,
    next_generation: u32,
    next_id: OperationId,
    pending: HashMap<Tag, Pending>,
    last_progress: Instant,
    buffer: Vec<u8>,
    report: Report,
}

impl<'o> Engine<'o> {
    pub fn start(options: &'o Options) -> Result<Engine<'o>> {
        ensure!(options.unit == 512 || options.unit == 4096, "the unit must be 512 or 4096 bytes");
        let most = options.queues * SLOTS_PER_QUEUE;
        ensure!(
            (1..=most).contains(&options.depth),
            "the queue depth must be 1 to {most} with {} queues",
            options.queues
        );
        let front = FrontEnd::connect(FrontEndOptions {
            socket: options.socket.clone(),
            queues: options.queues,
            max_data: MAX_DATA,
        })?;
        let config = front.config();
        let units = config.capacity.min(options.size_limit) / options.unit as u64;
        ensure!((1..=MAX_UNITS).contains(&units), "{units} units of {} bytes are not 1 to {MAX_UNITS}", options.unit);
        let (model, key, next_generation) = expected_content(options, units as usize)?;
        let ground = Ground {
            units: model.units(),
            unit: options.unit,
            max_discard: config.max_discard,
            max_write_zeroes: config.max_write_zeroes,
        };
        let report = Report { seed: options.seed, tracks_inflight: front.tracks_inflight(), ..Report::default() };
        Ok(Engine {
            options,
            front,
            model,
            ground,
            rng: Rng::new(options.seed),
            key,
            next_generation,
            next_id: 0,
            pending: HashMap::new(),
            last_progress: Instant::now(),
            buffer: vec![0; MAX_DATA],
            report,
        })
    }

    pub fn run(mut self, control: &Control) -> Result<Report> {
        let started = Instant::now();
        let healthy = self.load(control, started) && self.drain(control) && self.read_back(control);
        self.report.read_back_complete = healthy;
        self.report.seconds = started.elapsed().as_secs_f64();
        self.report.take_reconnects(self.front.reconnects());
        if let Some(path) = &self.options.state
            && healthy
        {
            State::new(self.key, self.ground.unit, self.next_generation, &self.model.snapshot()).save(path)?;
        }
        if healthy && let Err(e) = self.front.close() {
            self.report.protocol_error = Some(format!("the daemon did not stop the queues: {e:#}"));
        }
        Ok(self.report)
    }

    /// Keeps the queues full until the time is over. False if the run has to be given up.
    fn load(&mut self, control: &Control, started: Instant) -> bool {
        while started.elapsed() < self.options.time && !control.is_stopped() {
            while self.pending.len() < self.options.depth {
                let Some(step) = self.plan() else { break };
                let Some(tag) = self.free_slot() else { break };
                self.submit(tag, step, false);
            }
            if !self.turn(control) || !self.check_if_asked(control) {
                return false;
            }
        }
        true
    }

    /// Reads everything back in the middle of the load, if the one who watches asks for it.
    fn check_if_asked(&mut self, control: &Control) -> bool {
        let Some(number) = control.wanted_check() else { return true };
        let healthy = self.drain(control) && self.read_back(control);
        control.check_done(number);
        healthy
    }

    fn drain(&mut self, control: &Control) -> bool {
        while !self.pending.is_empty() {
            if !self.turn(control) {
                return false;
            }
        }
        true
    }

    /// Reads every unit once more.
    fn read_back(&mut self, control: &Control) -> bool {
        let step_units = (MAX_DATA / self.ground.unit) as u32;
        let mut next = 0;
        while next < self.ground.units {
            while next < self.ground.units
                && self.pending.len() < self.options.depth
                && let Some(tag) = self.free_slot()
            {
                let units = step_units.min(self.ground.units - next);
                self.submit(tag, Step { kind: Kind::Read, first: next, units }, true);
                next += units;
            }
            if !self.turn(control) {
                return false;
            }
        }
        self.drain(control)
    }

    /// One round: tell the device, wait, check what came back. False if the run has to be given up.
    fn turn(&mut self, control: &Control) -> bool {
        self.front.kick();
        let mut done = Vec::new();
        if let Err(e) = self.front.poll(TICK, &mut done) {
            self.report.protocol_error = Some(format!("{e:#}"));
            return false;
        }
        let stall = self.last_progress.elapsed();
        self.report.longest_stall_ms = self.report.longest_stall_ms.max(millis(stall));
        control.note_stall(stall);
        if !done.is_empty() || self.pending.is_empty() {
            self.last_progress = Instant::now();
        } else if stall > self.options.stall_limit {
            self.report.stuck = Some(self.describe_stall(stall));
            return false;
        }
        if control.is_abandoned() {
            self.report.stuck = Some("the run was abandoned".into());
            return false;
        }
        let before = (self.report.lost + self.report.wrong, self.report.io_errors);
        for completion in &done {
            if let Some(took) = self.complete(*completion) {
                control.note_request(took);
            }
        }
        control.note_faults(self.report.lost + self.report.wrong - before.0, self.report.io_errors - before.1);
        control.count(done.len());
        true
    }

    fn describe_stall(&self, stall: Duration) -> String {
        let state = match (self.front.is_connected(), self.front.last_error()) {
            (true, _) => "connected to the daemon".into(),
            (false, Some(error)) => format!("not connected: {error}"),
            (false, None) => "not connected".into(),
        };
        format!(
            "{} requests in flight and none completed for {:.1} s; {state}",
            self.pending.len(),
            stall.as_secs_f64()
        )
    }

    fn plan(&mut self) -> Option<Step> {
        for _ in 0..PLAN_ATTEMPTS {
            let step = next_step(&mut self.rng, &self.ground);
            let writes = !matches!(step.kind, Kind::Read | Kind::Flush);
            let busy = |unit| self.model.writes_in_flight(unit) >= MAX_WRITES_PER_UNIT;
            if !writes || !(step.first..step.first + step.units).any(busy) {
                return Some(step);
            }
        }
        None
    }

    fn free_slot(&mut self) -> Option<Tag> {
        let first = self.rng.below(self.options.queues as u64) as usize;
        (0..self.options.queues).find_map(|i| self.front.free_slot((first + i) % self.options.queues))
    }

    fn submit(&mut self, tag: Tag, step: Step, read_back: bool) {
        let id = self.next_id;
        self.next_id += 1;
        let unit = self.ground.unit;
        let (offset, len) = (u64::from(step.first) * unit as u64, step.units as usize * unit);
        let operation = match step.kind {
            Kind::Read => Operation::Read { offset, len },
            Kind::Write => Operation::Write { offset, len },
            Kind::Discard => Operation::Discard { offset, len: len as u64 },
            Kind::WriteZeroes { unmap } => Operation::WriteZeroes { offset, len: len as u64, unmap },
            Kind::Flush => Operation::Flush,
        };
        let data = matches!(step.kind, Kind::Write).then(|| self.prepare_data(tag, step));
        for unit in step.first..step.first + step.units {
            match step.kind {
                Kind::Read | Kind::Flush => self.model.begin_read(id, unit),
                Kind::Discard if !self.discards(&step, unit) => {
                    self.model.begin_write(id, unit, Effect::MaySet(Value::ZERO))
                }
                _ => self.model.begin_write(id, unit, Effect::Sets(data.unwrap_or(Value::ZERO))),
            }
        }
        let shape = Shape { indirect: self.rng.chance(50), pieces: self.rng.between(1, 4) as usize };
        self.pending.insert(tag, Pending { id, step, started: Instant::now(), read_back });
        self.front.submit(tag, operation, shape);
    }

    /// Whether the device promises that a discard makes the unit read as zeroes: it need not at the edges,
    /// where the discard covers less than one of the pieces that it is done in.
    fn discards(&self, step: &Step, unit: u32) -> bool {
        let size = self.ground.unit as u64;
        let alignment = self.front.config().discard_alignment;
        let piece = u64::from(unit) * size / alignment * alignment;
        let (start, end) = (u64::from(step.first) * size, u64::from(step.first + step.units) * size);
        let promised = !self.options.discard_may_keep;
        promised && start <= piece && piece + alignment.max(size) <= end
    }

    /// Puts the data of the next write into the slot and returns its value.
    fn prepare_data(&mut self, tag: Tag, step: Step) -> Value {
        let generation = self.next_generation;
        self.next_generation += 1;
        let data = &mut self.buffer[..step.units as usize * self.ground.unit];
        for (index, unit) in data.chunks_exact_mut(self.ground.unit).enumerate() {
            pattern::fill(unit, self.key, u64::from(step.first) + index as u64, generation);
        }
        self.front.put_data(tag, 0, data);
        Value(generation)
    }

    /// Judges a completion; answers with the time that the request took.
    fn complete(&mut self, completion: Completion) -> Option<Duration> {
        // The front end hands out completions of submitted requests only.
        let pending = self.pending.remove(&completion.tag)?;
        let took = pending.started.elapsed();
        self.report.slowest_request_ms = self.report.slowest_request_ms.max(millis(took));
        let step = pending.step;
        let succeeded = completion.status == 0;
        if !succeeded {
            self.report.io_errors += 1;
            let status = completion.status;
            self.report.find(|| format!("the device failed {step:?} with status {status}"));
        }
        self.count(&pending);
        let units = step.first..step.first + step.units;
        match step.kind {
            Kind::Flush => {}
            Kind::Read if succeeded => self.check(completion.tag, &pending),
            Kind::Read => units.for_each(|unit| self.model.drop_read(pending.id, unit)),
            _ => units.for_each(|unit| self.model.finish_write(pending.id, unit, succeeded)),
        }
        Some(took)
    }

    fn check(&mut self, tag: Tag, pending: &Pending) {
        let (step, size) = (pending.step, self.ground.unit);
        let data = &mut self.buffer[..step.units as usize * size];
        self.front.take_data(tag, 0, data);
        for (index, bytes) in data.chunks_exact(size).enumerate() {
            let unit = step.first + index as u32;
            let found = pattern::identify(bytes, self.key, u64::from(unit));
            let verdict = self.model.finish_read(pending.id, unit, found);
            self.report.judge(u64::from(unit) * size as u64, &verdict);
        }
    }

    fn count(&mut self, pending: &Pending) {
        let ops = &mut self.report.ops;
        if pending.read_back {
            ops.read_back += 1;
            return;
        }
        ops.total += 1;
        match pending.step.kind {
            Kind::Read => ops.read += 1,
            Kind::Write => ops.write += 1,
            Kind::Discard => ops.discard += 1,
            Kind::WriteZeroes { .. } => ops.write_zeroes += 1,
            Kind::Flush => ops.flush += 1,
        }
    }
}

/// The model a run starts with, the key of its stamps and the number of its first write.
fn expected_content(options: &Options, units: usize) -> Result<(Model, u64, u32)> {
    let saved = options.state.as_deref().filter(|path| path.exists());
    let Some(path) = saved else {
        let initial = if options.fresh { Value::ZERO } else { Value::UNKNOWN };
        return Ok((Model::new(units, initial), mix(options.seed.wrapping_add(0x5eed)), Value::FIRST));
    };
    let state = State::load(path)?;
    ensure!(
        state.unit == options.unit && state.values.len() == units,
        "{} describes {} units of {} bytes, this run has {units} of {}",
        path.display(),
        state.values.len(),
        state.unit,
        options.unit
    );
    let values = state.values.into_iter().map(Value).collect();
    Ok((Model::restore(values), state.key, state.next_generation))
}
