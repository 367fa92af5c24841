use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const RATE: u32 = 90_000;
const FRAME: u32 = 3_000;
/// Wall time when the tests begin, and the boot's.
const WALL_US: i64 = 1_772_366_400_000_000;

fn at_us(us: i64) -> Arrival {
    let mono = Mono::from_boot(Duration::from_micros(u64::try_from(us).unwrap() + 1_000_000));
    Arrival { mono, wall: Utc::from_micros(WALL_US + us) }
}

fn video(rtp: u32) -> Stamp {
    Stamp { track: Track::Video, rate: RATE, rtp }
}

fn audio(rtp: u32) -> Stamp {
    Stamp { track: Track::Audio, rate: 8_000, rtp }
}

/// NTP's 64 bits for a wall time.
fn ntp(us: i64) -> u64 {
    let seconds = (us.div_euclid(1_000_000) + NTP_EPOCH_S) as u64;
    (seconds << 32) | (((us.rem_euclid(1_000_000) as u64) << 32) / 1_000_000)
}

/// 30 pictures a second from `from`, a key frame every 2 s, each arriving `delay_us` after it was captured.
fn stream(clock: &mut Clock, from: u32, frames: std::ops::Range<u32>, delay_us: i64) -> Vec<Placed> {
    frames
        .map(|i| {
            let rtp = from.wrapping_add(i.wrapping_mul(FRAME));
            clock.frame(at_us(i64::from(i) * 1_000_000 / 30 + delay_us), video(rtp), i % 60 == 0)
        })
        .collect()
}

fn near(a: Utc, b_us: i64, within_us: i64) -> bool {
    a.micros().abs_diff(b_us) <= within_us as u64
}

#[test]
fn timestamps_that_wrap_at_32_bits_go_on_in_one_timeline() {
    let mut clock = Clock::default();
    let placed = stream(&mut clock, u32::MAX - 10 * FRAME, 0..100, 0);
    assert!(placed.windows(2).all(|w| w[1].ticks - w[0].ticks == i64::from(FRAME) && w[1].timeline == w[0].timeline));
}

#[test]
fn a_step_back_begins_a_timeline_and_small_disorder_does_not() {
    let mut clock = Clock::default();
    stream(&mut clock, 1_000_000, 0..30, 0);
    let b_frame = clock.frame(at_us(1_000_000), video(1_000_000 + 28 * FRAME), false);
    assert_eq!((b_frame.timeline, b_frame.ticks), (0, 1_000_000 + 29 * i64::from(FRAME)));
    let stepped = clock.frame(at_us(1_033_333), video(500_000), false);
    assert_eq!((stepped.timeline, stepped.ticks), (1, 500_000));
    assert!(near(stepped.captured, WALL_US + 1_033_333, 0));
}

#[test]
fn a_jump_ahead_begins_a_timeline_and_a_real_pause_does_not() {
    let mut clock = Clock::default();
    stream(&mut clock, 0, 0..30, 0);
    let paused = clock.frame(at_us(60_000_000), video(60 * RATE), false);
    assert_eq!(paused.timeline, 0);
    let jumped = clock.frame(at_us(60_033_333), video(90 * RATE), false);
    assert_eq!(jumped.timeline, 1);
}

#[test]
fn frames_held_up_by_the_network_stay_in_their_timeline() {
    let mut clock = Clock::default();
    stream(&mut clock, 0, 0..30, 0);
    let late: Vec<_> = (30..120).map(|i| clock.frame(at_us(3_800_000), video(i * FRAME), false)).collect();
    assert!(late.iter().all(|p| p.timeline == 0));
    assert!(near(late[0].captured, WALL_US + 1_000_000, 10));
}

#[test]
fn a_burst_at_the_beginning_is_corrected_at_the_next_key_frame() {
    // The camera first sends the two seconds it had buffered, all at once.
    let mut clock = Clock::default();
    for i in 0..60 {
        clock.frame(at_us(2_000_000), video(i * FRAME), i == 0);
    }
    let later = stream(&mut clock, 0, 60..200, 20_000);
    assert_eq!(later[0].timeline, 1, "the key frame");
    assert!(near(later[0].captured, WALL_US + 2_000_000, 50_000), "{:?}", later[0]);
    assert!(later.iter().all(|p| p.timeline == 1));
}

#[test]
fn sender_reports_put_the_encoders_delay_into_capture_time() {
    let mut clock = Clock::default();
    let before = stream(&mut clock, 0, 0..30, 400_000);
    assert!(near(before[0].captured, WALL_US + 400_000, 0), "by arrival at first");
    clock.sender_report(at_us(1_400_000), video(RATE + RATE * 4 / 10), ntp(WALL_US + 1_400_000));
    let after = stream(&mut clock, 0, 30..120, 400_000);
    assert!(after[..30].iter().all(|p| p.timeline == 0), "a correction waits for a key frame");
    assert_eq!(after[30].timeline, 1);
    assert!(near(after[30].captured, WALL_US + 2_000_000, 20), "{:?}", after[30]);
}

#[test]
fn a_first_report_that_agrees_changes_nothing() {
    let mut clock = Clock::default();
    stream(&mut clock, 0, 0..30, 100_000);
    clock.sender_report(at_us(1_100_000), video(RATE + RATE / 10), ntp(WALL_US + 1_100_000));
    assert!(stream(&mut clock, 0, 30..300, 100_000).iter().all(|p| p.timeline == 0));
}

#[test]
fn a_camera_with_a_wrong_clock_is_mapped_to_ours_and_keeps_sound_and_picture_together() {
    let mut clock = Clock::default();
    let year_us = -365 * 86_400 * 1_000_000_i64;
    // Reports come first; the sound lags half a second behind in arriving.
    clock.sender_report(at_us(0), video(RATE), ntp(WALL_US + year_us));
    clock.sender_report(at_us(0), audio(8_000), ntp(WALL_US + year_us));
    let picture = clock.frame(at_us(300_000), video(RATE), true);
    let sound = clock.frame(at_us(800_000), audio(8_000), false);
    assert_eq!(picture.captured, sound.captured);
    assert!(near(picture.captured, WALL_US, 20));
    assert!(clock.camera_ahead_us().unwrap().abs_diff(year_us) < 10);
}

#[test]
fn sound_out_of_step_with_the_pictures_is_brought_together_at_a_key_frame() {
    let mut clock = Clock::default();
    stream(&mut clock, 0, 0..30, 0);
    clock.frame(at_us(1_150_000), audio(8_000), false);
    clock.sender_report(at_us(1_160_000), video(RATE), ntp(WALL_US + 1_000_000));
    clock.sender_report(at_us(1_160_000), audio(8_000), ntp(WALL_US + 1_000_000));
    stream(&mut clock, 0, 30..61, 150_000);
    let picture = stream(&mut clock, 0, 61..62, 150_000)[0];
    let sound = clock.frame(at_us(2_190_000), audio(2 * 8_000), false);
    assert_eq!((picture.timeline, sound.timeline), (1, 1));
    assert!(near(sound.captured, WALL_US + 2_000_000, 20) && near(picture.captured, WALL_US + 2_033_333, 50));
}

#[test]
fn a_report_that_cannot_be_true_is_not_believed() {
    let mut clock = Clock::default();
    stream(&mut clock, 0, 0..30, 0);
    clock.sender_report(at_us(1_000_000), video(0x8000_0000), ntp(WALL_US + 1_000_000));
    clock.sender_report(at_us(1_000_000), video(RATE), 0);
    assert!(stream(&mut clock, 0, 30..130, 0).iter().all(|p| p.timeline == 0));
}

#[test]
fn when_our_own_clock_is_set_the_pictures_follow_at_a_key_frame() {
    for reports in [false, true] {
        let mut clock = Clock::default();
        let year_us = 365 * 86_400 * 1_000_000_i64;
        let mut last = None;
        for i in 0..60 * 30_u32 {
            let us = i64::from(i) * 1_000_000 / 30;
            let mut at = at_us(us);
            let camera_wall = at.wall.micros();
            if i > 300 {
                at.wall = at.wall.shifted(year_us);
            }
            if reports && i % 150 == 0 {
                clock.sender_report(at, video(i * FRAME), ntp(camera_wall));
            }
            last = Some((at, clock.frame(at, video(i * FRAME), i % 60 == 0)));
        }
        let (at, placed) = last.unwrap();
        assert!(near(placed.captured, at.wall.micros(), 50), "{placed:?} at {at:?}");
        assert!(placed.timeline <= 2, "{placed:?}");
    }
}

#[test]
fn years_beyond_2036_are_in_ntps_next_era() {
    let y2040 = Utc::from_micros(2_208_988_800_000_000);
    assert_eq!(ntp_micros(ntp(y2040.micros()), y2040), Some(y2040.micros()));
}

proptest! {
    #[test]
    fn whatever_a_camera_sends_ticks_never_go_back_and_capture_stays_at_a_constant_offset(
        events in prop::collection::vec(
            (any::<bool>(), 0..10u8, any::<u32>(), -20_000..400_000i32, 0..2_000_000i64, any::<bool>(), any::<u64>()),
            1..300,
        )
    ) {
        let mut clock = Clock::default();
        let (mut us, mut timeline) = (0, 0);
        let mut rtp = [0_u32; 2];
        let mut seen: HashMap<(u32, bool), (i64, i64)> = HashMap::new();
        for (sound, what, wild, step, after, key, report) in events {
            us += after;
            let track = usize::from(sound);
            rtp[track] = if what == 0 { wild } else { rtp[track].wrapping_add_signed(step) };
            let stamp = if sound { audio(rtp[track]) } else { video(rtp[track]) };
            match what {
                1 => clock.sender_report(at_us(us), stamp, report),
                2 => clock.sender_report(at_us(us), stamp, ntp(WALL_US + us - 300_000)),
                3 if wild % 20 == 0 => clock.begin_session(),
                _ => {
                    let placed = clock.frame(at_us(us), stamp, key && !sound);
                    prop_assert!(placed.timeline >= timeline);
                    timeline = placed.timeline;
                    let base = placed.captured.micros() - micros(placed.ticks, stamp.rate);
                    let (ticks, offset) = seen.entry((timeline, sound)).or_insert((placed.ticks, base));
                    prop_assert!(placed.ticks >= *ticks);
                    prop_assert_eq!(base, *offset);
                    *ticks = placed.ticks;
                }
            }
        }
    }

    #[test]
    fn a_steady_camera_is_one_timeline_wherever_its_timestamps_begin(
        from in any::<u32>(), jitter in prop::collection::vec(0..150_000i64, 400)
    ) {
        let mut clock = Clock::default();
        for (i, jitter) in (0..).zip(jitter) {
            let placed = clock.frame(at_us(i64::from(i) * 33_333 + jitter), video(from.wrapping_add(i * FRAME)), i % 60 == 0);
            prop_assert_eq!(placed.timeline, 0);
            prop_assert_eq!(placed.ticks, i64::from(from) + i64::from(i * FRAME));
        }
    }
}
