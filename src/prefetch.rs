//! A hint to the processor that memory will be read soon.

#![cfg_attr(
    all(target_arch = "x86_64", not(miri)),
    expect(unsafe_code, reason = "the prefetch instruction takes a pointer")
)]

/// Prefetches the cache line at `place`. It has no visible effect and costs next to nothing.
#[inline]
pub(crate) fn prefetch<T: ?Sized>(place: &T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch neither reads nor writes anything that a program can observe, and
        // can't fault at any address; this address is that of a borrowed value. All x86-64
        // processors support the instruction (SSE).
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(place).cast()) }
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = place;
}
