//! The synchronisation primitives of this crate, in one place, so that a schedule explorer can
//! stand in for the operating system without a change elsewhere.
//!
//! A poisoned lock is taken all the same: every critical section here leaves its data consistent
//! at each step, and a broker that refuses everybody because one task panicked would turn a small
//! fault into an outage.

#[cfg(not(broker_schedules))]
pub(crate) use std::sync::{
    Arc, Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError, Weak,
    atomic::{AtomicBool, AtomicU64, Ordering},
    mpsc,
};
#[cfg(not(broker_schedules))]
pub(crate) use std::thread;

#[cfg(broker_schedules)]
pub(crate) use shuttle::sync::{
    Arc, Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError, Weak,
    atomic::{AtomicBool, AtomicU64, Ordering},
    mpsc,
};
#[cfg(broker_schedules)]
pub(crate) use shuttle::thread;

use std::time::Duration;

/// Takes a mutex, also a poisoned one.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Takes a mutex that nobody holds, also a poisoned one.
pub(crate) fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// Takes a lock for reading, also a poisoned one.
pub(crate) fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Takes a lock for writing, also a poisoned one.
pub(crate) fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Waits for a notification, or for so long; says whether the time ran out.
#[cfg(not(broker_schedules))]
pub(crate) fn wait_for<'a, T>(
    condvar: &Condvar,
    guard: MutexGuard<'a, T>,
    limit: Duration,
) -> (MutexGuard<'a, T>, bool) {
    let (guard, timeout) = condvar
        .wait_timeout(guard, limit)
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    (guard, timeout.timed_out())
}

/// Waits for a notification; in some schedules time runs out before one comes.
#[cfg(broker_schedules)]
pub(crate) fn wait_for<'a, T>(
    condvar: &Condvar,
    guard: MutexGuard<'a, T>,
    _: Duration,
) -> (MutexGuard<'a, T>, bool) {
    use shuttle::rand::Rng as _;
    if shuttle::rand::thread_rng().gen_ratio(1, 4) {
        return (guard, true);
    }
    let guard = condvar
        .wait(guard)
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    (guard, false)
}
