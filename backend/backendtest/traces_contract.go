package backendtest

import (
	"math"

	"github.com/ginlimit/ginlimit/backend"
)

var refundTraces = []trace{{
	name:   "token bucket: never above the capacity",
	demand: "A refund gives back at most what is not refilled yet.",
	limits: one(per(10, 10*sec)),
	steps: []step{
		take{0, 6, yes, 4, 0, 6 * sec},
		refund{1 * sec, 1},
		take{1 * sec, 0, yes, 10, 0, 0},
		refund{1 * sec, 1},
		take{1 * sec, 0, yes, 10, 0, 0},
		take{1 * sec, 10, yes, 0, 0, 10 * sec},
		take{2500 * ms, 1, yes, 0, 0, 9500 * ms},
		refund{2500 * ms, 4},
		take{2500 * ms, 0, yes, 10, 0, 0},
		take{2500 * ms, 3, yes, 7, 0, 3 * sec},
		refund{3 * sec, 7},
		take{3 * sec, 3, yes, 7, 0, 3 * sec},
	},
}, {
	name:   "token bucket: parts of a µs come back too",
	demand: "Charge and refund cancel out exactly, also where a unit is no whole number of µs.",
	limits: one(per(7, sec)),
	steps: []step{
		take{0, 5, yes, 2, 0, 714_286 * µs},
		take{0, 1, yes, 1, 0, 857_143 * µs},
		refund{0, 2},
		take{0, 0, yes, 2, 0, 714_286 * µs},
		take{0, 2, yes, 0, 0, 1 * sec},
		refund{0, 4},
		take{0, 3, no, 2, 142_858 * µs, 714_286 * µs},
		refund{100 * ms, 1},
		take{100 * ms, 7, yes, 0, 0, 1 * sec},
	},
}, {
	name:   "token bucket: an old charge has been refilled",
	demand: "A charge as old as the time in which the whole bucket fills gives nothing back; a younger one does.",
	limits: one(per(10, 10*sec)),
	steps: []step{
		take{0, 10, yes, 0, 0, 10 * sec},
		take{9 * sec, 9, yes, 0, 0, 10 * sec},
		refund{10 * sec, 1},
		take{10 * sec, 0, yes, 1, 0, 9 * sec},
		forget{10 * sec},
		take{10 * sec, 5, yes, 5, 0, 5 * sec},
		take{19 * sec, 10, yes, 0, 0, 10 * sec},
		refund{20*sec - 1*µs, 4},
		take{20*sec - 1*µs, 0, yes, 5, 0, 4*sec + 1*µs},
	},
}, {
	name:   "token bucket: the burst says what is old",
	demand: "The age at which a charge gives nothing back is that of the burst, not of the Period.",
	limits: one(per(10, 10*sec).WithBurst(3)),
	steps: []step{
		take{0, 3, yes, 0, 0, 3 * sec},
		take{2 * sec, 2, yes, 0, 0, 3 * sec},
		refund{3 * sec, 1},
		take{3 * sec, 0, yes, 1, 0, 2 * sec},
	},
}, {
	name:   "sliding window: credits the window charged",
	demand: "A refund is taken off the window before if that was the one charged, and weighs no more than that.",
	limits: one(sliding(10, 10*sec)),
	steps: []step{
		take{0, 8, yes, 2, 0, 20 * sec},
		take{5 * sec, 1, yes, 1, 0, 15 * sec},
		take{10 * sec, 1, yes, 0, 0, 20 * sec},
		take{15 * sec, 0, yes, 4, 0, 15 * sec}, // half of 9, and 1
		refund{15 * sec, 2},
		take{15 * sec, 0, yes, 5, 0, 15 * sec}, // half of 8, and 1
		refund{15 * sec, 3},
		take{15 * sec, 0, yes, 6, 0, 5 * sec},
		refund{15 * sec, 1},
		take{15 * sec, 0, yes, 10, 0, 0},
	},
}, {
	name:   "sliding window: a window that is over gives nothing back",
	demand: "A charge of two windows ago gives nothing back, and no window gives back more than it was charged.",
	limits: one(sliding(10, 10*sec)),
	steps: []step{
		take{0, 4, yes, 6, 0, 20 * sec},
		take{10 * sec, 3, yes, 3, 0, 20 * sec},
		refund{12 * sec, 1},
		take{12 * sec, 0, yes, 7, 0, 18 * sec},
		refund{12 * sec, 1},
		take{12 * sec, 0, yes, 7, 0, 18 * sec},
		refund{20 * sec, 1},
		take{20 * sec, 0, yes, 7, 0, 10 * sec},
		take{20 * sec, 2, yes, 5, 0, 20 * sec},
		refund{29_999_999 * µs, 1},
		take{29_999_999 * µs, 0, yes, 7, 0, 10*sec + 1*µs},
	},
}, {
	name:   "sliding window: never more than the window before held",
	demand: "A refund takes no more off the window before than is left of it.",
	limits: one(sliding(10, 10*sec)),
	steps: []step{
		take{0, 4, yes, 6, 0, 20 * sec},
		take{5 * sec, 3, yes, 3, 0, 15 * sec},
		take{12 * sec, 1, yes, 3, 0, 18 * sec}, // 5.6 and 1
		refund{12 * sec, 1},
		take{12 * sec, 0, yes, 6, 0, 18 * sec}, // 2.4 and 1
		refund{12 * sec, 1},
		take{12 * sec, 0, yes, 9, 0, 18 * sec},
		take{12 * sec, 9, yes, 0, 0, 18 * sec},
	},
}, {
	name:   "sliding window: never moves a window",
	demand: "A window all of whose charges were refunded still ends when it would have; only then does the next hit start one.",
	limits: one(sliding(10, 10*sec)),
	steps: []step{
		take{0, 3, yes, 7, 0, 20 * sec},
		refund{4 * sec, 1},
		take{4 * sec, 0, yes, 10, 0, 0},
		take{6 * sec, 2, yes, 8, 0, 14 * sec},
		refund{9 * sec, 3},
		take{12 * sec, 2, yes, 8, 0, 20 * sec},
	},
}, {
	name:   "sliding log: takes the charge off",
	demand: "A refund takes its charge out of the log, once, and finds nothing when the charge is a Period old.",
	limits: one(log(3, 10*sec)),
	steps: []step{
		take{0, 1, yes, 2, 0, 10 * sec},
		take{2 * sec, 2, yes, 0, 0, 10 * sec},
		refund{3 * sec, 1},
		take{3 * sec, 0, yes, 1, 0, 9 * sec},
		refund{3 * sec, 1},
		take{3 * sec, 0, yes, 1, 0, 9 * sec},
		take{3 * sec, 1, yes, 0, 0, 10 * sec},
		refund{12 * sec, 2},
		take{12 * sec, 0, yes, 2, 0, 1 * sec},
		refund{12 * sec, 5},
		take{12 * sec, 0, yes, 3, 0, 0},
	},
}, {
	name:   "sliding log: charges of one instant",
	demand: "Of charges at one instant a refund takes back what it was, and leaves the rest.",
	limits: one(log(5, sec)),
	steps: []step{
		take{0, 3, yes, 2, 0, 1 * sec},
		take{0, 2, yes, 0, 0, 1 * sec},
		refund{500 * ms, 2},
		take{500 * ms, 0, yes, 2, 0, 500 * ms},
		take{500 * ms, 2, yes, 0, 0, 1 * sec},
		refund{999_999 * µs, 1},
		take{999_999 * µs, 0, yes, 3, 0, 500_001 * µs},
		refund{1 * sec, 4},
		take{1 * sec, 0, yes, 5, 0, 0},
	},
}, {
	name:   "fixed window: never moves a window",
	demand: "A window all of whose charges were refunded still ends when it would have.",
	limits: one(window(5, 10*sec)),
	steps: []step{
		take{0, 5, yes, 0, 0, 10 * sec},
		refund{3 * sec, 1},
		take{3 * sec, 0, yes, 5, 0, 0},
		take{4 * sec, 2, yes, 3, 0, 6 * sec},
		refund{4 * sec, 3},
		refund{4 * sec, 3},
		take{5 * sec, 5, yes, 0, 0, 5 * sec},
		take{10 * sec, 5, yes, 0, 0, 10 * sec},
	},
}, {
	name:   "fixed window: never credits another window",
	demand: "A charge gives back until its window is over, and nothing to the window after it.",
	limits: one(window(5, 10*sec)),
	steps: []step{
		take{0, 2, yes, 3, 0, 10 * sec},
		take{9 * sec, 2, yes, 1, 0, 1 * sec},
		refund{9_999_999 * µs, 1},
		take{9_999_999 * µs, 0, yes, 3, 0, 1 * µs},
		take{10 * sec, 5, yes, 0, 0, 10 * sec},
		refund{10 * sec, 2},
		take{10 * sec, 0, no, 0, 10 * sec, 10 * sec},
		refund{10 * sec, 4},
		take{10 * sec, 0, yes, 5, 0, 0},
	},
}, {
	name:   "a refused charge gives nothing back",
	demand: "A Take that was refused charged nothing, so that its refund gives nothing back.",
	limits: []backend.Limit{per(10, 10*sec), window(10, 20*sec), log(10, 20*sec), sliding(10, 20*sec)},
	steps: []step{
		take{0, 8, yes, 2, 0, 8 * sec},
		take{0, 3, no, 2, 22500 * ms, 40 * sec},
		refund{0, 2},
		take{0, 0, yes, 2, 0, 8 * sec},
		take{0, 11, no, 2, never, 8 * sec},
		refund{0, 4},
		take{0, 0, yes, 2, 0, 8 * sec},
	},
}, {
	name:   "several limits",
	demand: "A refund credits every limit that was charged, each by its own rule.",
	limits: []backend.Limit{window(5, 2*sec), per(10, 10*sec), log(8, 10*sec)},
	steps: []step{
		take{0, 5, yes, 0, 0, 2 * sec},
		take{2 * sec, 3, yes, 0, 0, 10 * sec}, // the log
		refund{2 * sec, 1},                    // not the window: that one is over
		take{2 * sec, 0, yes, 2, 0, 2 * sec},
		change{backend.Unlimited(), per(10, 10*sec)},
		take{2 * sec, 0, yes, 9, 0, 1 * sec},
		change{backend.Unlimited(), backend.Unlimited(), log(8, 10*sec)},
		take{2 * sec, 0, yes, 5, 0, 10 * sec},
	},
}, {
	name:   "only the limits charged",
	demand: "A refund credits the limits that the charge was made under, not others of the key.",
	limits: []backend.Limit{per(10, 10*sec), per(10, 10*sec)},
	steps: []step{
		take{0, 4, yes, 6, 0, 4 * sec},
		change{per(10, 10*sec)},
		take{0, 3, yes, 3, 0, 7 * sec},
		refund{0, 2},
		take{0, 0, yes, 6, 0, 4 * sec},
		change{backend.Unlimited(), per(10, 10*sec)},
		take{0, 0, yes, 6, 0, 4 * sec},
	},
}, {
	name:   "a charge of an unlimited limit",
	demand: "A limit that keeps no state charges nothing, so that a refund under it gives nothing back.",
	limits: one(per(10, 10*sec)),
	steps: []step{
		take{0, 5, yes, 5, 0, 5 * sec},
		change{backend.Unlimited()},
		take{1 * sec, 4, yes, math.MaxInt64, 0, 0},
		refund{1 * sec, 2},
		change{per(10, 10*sec)},
		take{1 * sec, 0, yes, 6, 0, 4 * sec},
	},
}, {
	name:   "a charge under another algorithm",
	demand: "What one algorithm was charged is not given back to another that took its place.",
	limits: one(window(10, 10*sec)),
	steps: []step{
		take{0, 5, yes, 5, 0, 10 * sec},
		change{per(10, 10*sec)},
		take{0, 4, yes, 1, 0, 9 * sec},
		refund{1 * sec, 1},
		take{1 * sec, 0, yes, 2, 0, 8 * sec},
		change{log(10, 10*sec)},
		take{1 * sec, 1, yes, 1, 0, 10 * sec},
		refund{1 * sec, 2},
		take{1 * sec, 0, yes, 1, 0, 10 * sec},
	},
}, {
	name:   "a charge of one window under another",
	demand: "What a fixed window was charged is not given back to a sliding window that took it over, nor the other way round.",
	limits: one(window(10, 10*sec)),
	steps: []step{
		take{0, 5, yes, 5, 0, 10 * sec},
		change{sliding(10, 10*sec)},
		take{0, 1, yes, 4, 0, 20 * sec},
		refund{1 * sec, 1},
		take{1 * sec, 0, yes, 4, 0, 19 * sec},
		change{window(10, 10*sec)},
		take{1 * sec, 2, yes, 2, 0, 10 * sec},
		refund{1 * sec, 2},
		refund{1 * sec, 4},
		take{1 * sec, 0, yes, 4, 0, 10 * sec},
	},
}, {
	name:   "a charge of a limit that moved",
	demand: "A refund finds what its limit was charged where that stands now, as a charge does.",
	limits: one(window(5, 10*sec)),
	steps: []step{
		take{0, 3, yes, 2, 0, 10 * sec},
		change{window(9, 10*sec), window(5, 10*sec)},
		by{0, 1, yes, 1, 0, 10 * sec, 1},
		refund{0, 1},
		by{0, 0, yes, 4, 0, 10 * sec, 1},
		refund{0, 2},
		by{0, 0, yes, 5, 0, 0, 1},
	},
}, {
	name:   "under the limit that was charged last",
	demand: "A refund works under the limit that was charged last: a bucket's charge is as old as that says, also if other limits were refused since.",
	limits: one(per(1, sec).WithBurst(10)),
	steps: []step{
		take{0, 5, yes, 5, 0, 5 * sec},
		take{4 * sec, 5, yes, 4, 0, 6 * sec},
		change{per(1, sec).WithBurst(7)},
		take{4 * sec, 2, no, 1, 1 * sec, 6 * sec},
		refund{7 * sec, 1},
		take{7 * sec, 0, yes, 7, 0, 0},
		take{7 * sec, 6, yes, 1, 0, 6 * sec},
		refund{11 * sec, 2},
		take{11 * sec, 0, yes, 5, 0, 2 * sec},
	},
}, {
	name:   "in a window of another Period",
	demand: "A refund under a limit that changed goes to the window that was charged, as long as that lasts under the limit that was charged last.",
	limits: one(window(10, 10*sec)),
	steps: []step{
		take{0, 2, yes, 8, 0, 10 * sec},
		take{4 * sec, 3, yes, 5, 0, 6 * sec},
		change{window(10, 20*sec)},
		take{5 * sec, 1, yes, 4, 0, 10 * sec}, // since -5 s
		refund{14 * sec, 2},
		take{14 * sec, 0, yes, 7, 0, 1 * sec},
		refund{15 * sec, 1},
		take{15 * sec, 0, yes, 10, 0, 0},
	},
}, {
	name:   "a look gives nothing back",
	demand: "A charge of cost 0 was none: its refund changes nothing.",
	limits: []backend.Limit{per(10, 10*sec), window(10, 10*sec), log(10, 10*sec), sliding(10, 10*sec)},
	steps: []step{
		take{0, 5, yes, 5, 0, 5 * sec},
		take{0, 0, yes, 5, 0, 5 * sec},
		refund{0, 2},
		take{0, 0, yes, 5, 0, 5 * sec},
	},
}}

var changeTraces = []trace{{
	name:   "token bucket: upgrade frees at once",
	demand: "A higher limit frees the difference at once; until it is charged what was used ages, and resets, under the limit before.",
	limits: one(per(10, 10*sec)),
	steps: []step{
		take{0, 10, yes, 0, 0, 10 * sec},
		change{per(100, 10*sec)},
		take{0, 0, yes, 90, 0, 10 * sec},
		change{per(10, 10*sec)},
		take{0, 0, no, 0, 1 * sec, 10 * sec},
		change{per(100, 10*sec)},
		take{0, 1, yes, 89, 0, 1100 * ms},
		change{per(10, 10*sec).WithBurst(20)},
		take{0, 1, yes, 8, 0, 12 * sec},
	},
}, {
	name:   "token bucket: a smaller limit cuts nothing",
	demand: "A smaller limit that refuses writes nothing, says how long it takes until its cost fits beside all that was used, and forgives none of it.",
	limits: one(per(100, 10*sec)),
	steps: []step{
		take{0, 50, yes, 50, 0, 5 * sec},
		change{per(10, 10*sec)},
		take{0, 0, no, 0, 4100 * ms, 5 * sec},
		take{0, 1, no, 0, 4100 * ms, 5 * sec},
		take{0, 10, no, 0, 5 * sec, 5 * sec},
		take{0, 11, no, 0, never, 5 * sec},
		change{per(100, 10*sec)},
		take{0, 0, yes, 50, 0, 5 * sec},
		change{per(10, 10*sec)},
		take{4100*ms - 1*µs, 1, no, 0, 1 * µs, 900*ms + 1*µs},
		take{4100 * ms, 1, yes, 0, 0, 10 * sec}, // 9 of 10 a second are 9 of 1 a second
		change{per(100, 10*sec).WithBurst(5)},
		take{4100 * ms, 1, no, 0, 6 * sec, 10 * sec},
		change{per(100, 10*sec)},
		take{4100 * ms, 0, yes, 90, 0, 10 * sec},
	},
}, {
	name:   "token bucket: used units are rounded up",
	demand: "Units used are carried over rounded up to 1/Period of a unit, with the new Period in µs.",
	limits: one(per(7, sec)),
	steps: []step{
		take{0, 1, yes, 6, 0, 142_858 * µs},
		change{per(3, 7*ms)},
		take{1 * µs, 0, yes, 2, 0, 142_857 * µs},
		take{142 * µs, 1, yes, 1, 0, 4665 * µs}, // 0.999006 to 6994/7000, and 1
		change{per(7, sec)},
		take{142 * µs, 1, yes, 4, 0, 428_449 * µs}, // 1.9991428… to 1.999143, and 1
	},
}, {
	name:   "token bucket: another burst keeps the debt",
	demand: "Where only the burst differs the debt stays as it is, to the last part of a µs.",
	limits: one(per(7, sec)),
	steps: []step{
		take{0, 1, yes, 6, 0, 142_858 * µs},
		change{per(7, sec).WithBurst(3)},
		take{1 * µs, 1, yes, 1, 0, 285_714 * µs},
		change{per(7, sec).WithBurst(7)}, // the first again, said otherwise
		take{1 * µs, 1, yes, 4, 0, 428_571 * µs},
	},
}, {
	name:   "fixed window: a smaller limit cuts nothing",
	demand: "A smaller limit waits for the end of the window that was charged, which counts down, and cuts nothing of what was used.",
	limits: one(window(10, 10*sec)),
	steps: []step{
		take{0, 8, yes, 2, 0, 10 * sec},
		change{window(5, 20*sec)},
		take{0, 1, no, 0, 10 * sec, 10 * sec},
		take{4 * sec, 1, no, 0, 6 * sec, 6 * sec},
		change{window(10, 10*sec)},
		take{4 * sec, 0, yes, 2, 0, 6 * sec},
		change{window(5, 20*sec)},
		take{10*sec - 1*µs, 1, no, 0, 1 * µs, 1 * µs},
		take{10 * sec, 1, yes, 4, 0, 20 * sec},
	},
}, {
	name:   "fixed window: keeps its relative age",
	demand: "With a charge half a window stays half a window, with the units used.",
	limits: one(window(10, 10*sec)),
	steps: []step{
		take{0, 6, yes, 4, 0, 10 * sec},
		change{window(10, 20*sec)},
		take{5 * sec, 0, yes, 4, 0, 5 * sec},
		take{5 * sec, 1, yes, 3, 0, 10 * sec},
		change{window(100, 10*sec)},
		take{5 * sec, 0, yes, 93, 0, 10 * sec},
		take{5 * sec, 1, yes, 92, 0, 5 * sec},
	},
}, {
	name:   "fixed window: ages are rounded down",
	demand: "The carried age is floor(age × new Period / old Period) µs.",
	limits: one(window(10, 3*sec)),
	steps: []step{
		take{0, 6, yes, 4, 0, 3 * sec},
		change{window(10, 7*sec)},
		take{1 * µs, 1, yes, 3, 0, 7*sec - 2*µs},
		change{window(10, 3*sec)},
		take{2 * µs, 1, yes, 2, 0, 3*sec - 1*µs}, // 3 µs of 7 s are 1 of 3 s
		change{window(10, 2*ms)},
		take{3 * sec, 1, yes, 1, 0, 1 * µs},
		change{window(10, 7*sec)},
		take{3*sec + 1*µs, 1, yes, 9, 0, 7 * sec},
	},
}, {
	name:   "fixed window: stays as near to its end",
	demand: "A window that is 1 µs from its end of 10 s is 360 µs from its end of an hour.",
	limits: one(window(5, 10*sec)),
	steps: []step{
		take{0, 4, yes, 1, 0, 10 * sec},
		change{window(5, hour)},
		take{10*sec - 1*µs, 1, yes, 0, 0, 360 * µs},
	},
}, {
	name:   "an old window is not revived",
	demand: "What ended under the old limit is not revived by a longer Period.",
	limits: []backend.Limit{window(5, 10*sec), sliding(5, 5*sec), log(5, 10*sec), per(5, 10*sec)},
	steps: []step{
		take{0, 5, yes, 0, 0, 10 * sec},
		change{window(5, hour), sliding(5, hour), log(5, hour), per(5, hour)},
		take{10 * sec, 0, yes, 5, 0, 0},
	},
}, {
	name:   "sliding window: a smaller limit cuts nothing",
	demand: "A smaller limit waits until its cost fits beside the weight of both windows, which goes down under the limit that was charged.",
	limits: one(sliding(10, 10*sec)),
	steps: []step{
		take{0, 10, yes, 0, 0, 20 * sec},
		change{sliding(5, 20*sec)},
		take{0, 1, no, 0, 16 * sec, 20 * sec},
		take{10 * sec, 1, no, 0, 6 * sec, 10 * sec},
		change{sliding(10, 10*sec)},
		take{15 * sec, 0, yes, 5, 0, 5 * sec},
		change{sliding(5, 20*sec)},
		take{16 * sec, 1, yes, 0, 0, 28 * sec},
	},
}, {
	name:   "sliding window: keeps weights",
	demand: "With a charge both windows keep their relative age, so that their weight stays, also above the new count.",
	limits: one(sliding(10, 10*sec)),
	steps: []step{
		take{0, 10, yes, 0, 0, 20 * sec},
		change{sliding(10, 20*sec)},
		take{15 * sec, 1, yes, 4, 0, 30 * sec}, // half of 10, and 1
		change{sliding(4, 20*sec)},
		take{15 * sec, 1, no, 0, 6 * sec, 30 * sec},
		change{sliding(10, 20*sec)},
		take{15 * sec, 4, yes, 0, 0, 30 * sec},
		change{sliding(2, 20*sec)},
		take{15 * sec, 1, no, 0, 26 * sec, 30 * sec},
		take{15 * sec, 2, no, 0, 30 * sec, 30 * sec},
		change{sliding(10, 20*sec)},
		take{15 * sec, 0, no, 0, 2 * sec, 30 * sec},
	},
}, {
	name:   "sliding window: a weight a hair above the count",
	demand: "The carried age is rounded down, so that the weight may come to lie above the count; then nothing remains, and not less.",
	limits: one(sliding(3, 3*ms)),
	steps: []step{
		take{0, 3, yes, 0, 0, 6 * ms},
		change{sliding(3, 1*ms)},
		take{4 * ms, 1, yes, 0, 0, 1667 * µs}, // 3 × 667/1000, and 1
		take{4 * ms, 0, no, 0, 334 * µs, 1667 * µs},
	},
}, {
	name:   "sliding log: a smaller limit cuts nothing",
	demand: "A smaller limit waits until as many charges have left as its cost needs, under the limit that they were made under.",
	limits: one(log(5, 10*sec)),
	steps: []step{
		take{0, 3, yes, 2, 0, 10 * sec},
		take{4 * sec, 2, yes, 0, 0, 10 * sec},
		change{log(3, 20*sec)},
		take{4 * sec, 1, no, 0, 6 * sec, 10 * sec},
		take{5 * sec, 2, no, 0, 9 * sec, 9 * sec},
		change{log(6, 10*sec)},
		take{5 * sec, 0, yes, 1, 0, 9 * sec},
		change{log(3, 20*sec)},
		take{10 * sec, 1, yes, 0, 0, 20 * sec}, // 2 of 6 s ago are of 12 s ago
		take{18*sec - 1*µs, 1, no, 0, 1 * µs, 12*sec + 1*µs},
		take{18 * sec, 2, yes, 0, 0, 20 * sec},
	},
}, {
	name:   "sliding log: ages are rounded down",
	demand: "With a charge every other keeps its relative age, floor(age × new Period / old Period) µs; those that meet at one instant become one.",
	limits: one(log(9, 3*sec)),
	steps: []step{
		take{0, 2, yes, 7, 0, 3 * sec},
		take{1 * µs, 1, yes, 6, 0, 3 * sec},
		change{log(9, 7*sec)},
		take{2 * µs, 1, yes, 5, 0, 7 * sec},
		take{2 * µs, 7, no, 5, 7*sec - 4*µs, 7 * sec},
		take{2 * µs, 8, no, 5, 7*sec - 2*µs, 7 * sec},
		change{log(9, 1*ms)},
		take{2 * µs, 1, yes, 4, 0, 1 * ms},
		take{2 * µs, 5, no, 4, 1 * ms, 1 * ms},
		refund{2 * µs, 3},
		take{2 * µs, 0, yes, 5, 0, 1 * ms},
	},
}, {
	name:   "another algorithm takes over what is in use",
	demand: "A limit that counts in another way takes over the units in use, rounded up, as if they were charged at the instant of its first charge.",
	limits: one(window(5, 10*sec)),
	steps: []step{
		take{0, 3, yes, 2, 0, 10 * sec},
		change{per(5, 10*sec)},
		take{4 * sec, 3, no, 2, 6 * sec, 6 * sec},
		take{4 * sec, 0, yes, 2, 0, 6 * sec},
		take{4 * sec, 1, yes, 1, 0, 8 * sec},
		change{log(5, 10*sec)},
		take{5 * sec, 2, no, 1, 1 * sec, 7 * sec}, // 3.5 are in use
		take{5 * sec, 1, yes, 0, 0, 10 * sec},
		change{sliding(5, 10*sec)},
		take{5 * sec, 1, no, 0, 10 * sec, 10 * sec},
		take{15 * sec, 2, yes, 3, 0, 20 * sec},
		change{window(5, 10*sec)},
		take{20 * sec, 1, yes, 2, 0, 10 * sec},
		change{sliding(5, 10*sec)},
		take{25 * sec, 1, yes, 1, 0, 20 * sec},
		change{per(5, 10*sec)},
		take{38 * sec, 1, yes, 1, 0, 8 * sec}, // 4 × 7/10
	},
}, {
	name:   "another algorithm after nothing",
	demand: "What was all given back is taken over as nothing, so that the limit begins with its own first charge.",
	limits: one(window(5, 10*sec)),
	steps: []step{
		take{0, 3, yes, 2, 0, 10 * sec},
		refund{1 * sec, 1},
		change{sliding(5, 10*sec)},
		take{4 * sec, 2, yes, 3, 0, 20 * sec},
	},
}, {
	name:   "a limit in front",
	demand: "A limit put in front of the list, or taken from there, forgets nothing of the others.",
	limits: one(window(5, 10*sec)),
	steps: []step{
		take{0, 3, yes, 2, 0, 10 * sec},
		change{window(9, hour), window(5, 10*sec)},
		by{1 * sec, 1, yes, 1, 0, 9 * sec, 1},
		by{1 * sec, 2, no, 1, 9 * sec, 9 * sec, 1},
		change{window(5, 10*sec)},
		take{2 * sec, 1, yes, 0, 0, 8 * sec},
		change{per(100, sec), window(5, 10*sec)},
		by{3 * sec, 1, no, 0, 7 * sec, 7 * sec, 1},
		by{10 * sec, 1, yes, 4, 0, 10 * sec, 1},
	},
}, {
	name:   "limits that are moved",
	demand: "Limits in another order find what each of them was charged.",
	limits: []backend.Limit{window(9, hour), window(5, 10*sec)},
	steps: []step{
		by{0, 5, yes, 0, 0, 10 * sec, 1},
		change{window(5, 10*sec), window(9, hour)},
		by{1 * sec, 1, no, 0, 9 * sec, 9 * sec, 0},
		by{10 * sec, 1, yes, 3, 0, hour - 10*sec, 1},
		change{window(9, hour), window(5, 10*sec)},
		by{10 * sec, 3, yes, 0, 0, hour - 10*sec, 0},
		by{10 * sec, 1, no, 0, hour - 10*sec, hour - 10*sec, 0},
	},
}, {
	name:   "a limit that is taken out",
	demand: "A limit that is not passed is forgotten with the next charge, and not before.",
	limits: []backend.Limit{window(5, 10*sec), log(4, 20*sec)},
	steps: []step{
		by{0, 2, yes, 2, 0, 20 * sec, 1},
		change{window(5, 10*sec)},
		take{1 * sec, 0, yes, 3, 0, 9 * sec},
		take{1 * sec, 4, no, 3, 9 * sec, 9 * sec},
		change{window(5, 10*sec), log(4, 20*sec)},
		by{1 * sec, 3, no, 2, 19 * sec, 19 * sec, 1},
		change{window(5, 10*sec)},
		take{1 * sec, 1, yes, 2, 0, 9 * sec},
		change{window(5, 10*sec), log(4, 20*sec)},
		by{1 * sec, 0, yes, 2, 0, 9 * sec, 0},
		by{1 * sec, 2, yes, 0, 0, 9 * sec, 0},
		by{10 * sec, 3, no, 2, 11 * sec, 11 * sec, 1},
	},
}, {
	name:   "the same numbers first",
	demand: "A limit's past is what has its numbers, wherever that stands, before anything that has not.",
	limits: one(window(5, 10*sec)),
	steps: []step{
		take{0, 1, yes, 4, 0, 10 * sec},
		change{window(5, 10*sec), window(7, 10*sec)},
		by{0, 3, yes, 1, 0, 10 * sec, 0},
		change{window(7, 10*sec), window(6, 10*sec)}, // the second takes over the first of before
		by{0, 0, yes, 2, 0, 10 * sec, 1},
	},
}, {
	name:   "the same numbers: the burst is one of them",
	demand: "The capacity is one of a bucket's numbers, however the burst is written: 0 and a burst of the count are the same.",
	limits: one(per(10, 10*sec)),
	steps: []step{
		take{0, 4, yes, 6, 0, 4 * sec},
		change{per(10, 10*sec), per(10, 10*sec).WithBurst(3)},
		by{0, 2, yes, 1, 0, 2 * sec, 1},
		change{per(10, 10*sec).WithBurst(3), per(10, 10*sec).WithBurst(10)},
		by{0, 0, yes, 1, 0, 2 * sec, 0},
		by{0, 1, yes, 0, 0, 3 * sec, 0},
		change{per(10, 10*sec)},
		take{0, 0, yes, 3, 0, 7 * sec},
	},
}, {
	name:   "the same numbers at the same place",
	demand: "Of several pasts with a limit's numbers that at its own place is its; each past is that of one limit.",
	limits: one(window(5, 10*sec)),
	steps: []step{
		take{0, 1, yes, 4, 0, 10 * sec},
		change{window(5, 10*sec), window(5, 10*sec), window(5, 10*sec)},
		by{0, 1, yes, 3, 0, 10 * sec, 0},
		change{per(9, sec), window(5, 10*sec).Named("a"), window(5, 10*sec).Named("b"), window(5, 10*sec).Named("c")},
		by{0, 0, yes, 3, 0, 10 * sec, 3}, // the first finds the second past, the third what is left
	},
}, {
	name:   "then the same algorithm and Period",
	demand: "Where no numbers are the same, a limit's past is what counts as it does over the same Period: at its own place, or else the first.",
	limits: one(window(5, 10*sec)),
	steps: []step{
		take{0, 1, yes, 4, 0, 10 * sec},
		change{window(5, 10*sec), window(7, 10*sec)},
		by{0, 3, yes, 1, 0, 10 * sec, 0},
		change{window(9, 10*sec), window(8, 10*sec)},
		by{0, 0, yes, 5, 0, 10 * sec, 0}, // 4 and 3 used
		change{log(9, 20*sec), window(9, 10*sec), window(6, 10*sec)},
		by{0, 0, yes, 2, 0, 10 * sec, 2}, // the second keeps its place, the third has the first
		change{log(3, 20*sec), log(9, hour), window(9, 10*sec)},
		by{0, 1, yes, 2, 0, 20 * sec, 0}, // the third has the first, which leaves its place
		change{window(9, 10*sec)},
		take{0, 0, yes, 4, 0, 10 * sec},
	},
}, {
	name:   "then the place",
	demand: "Where nothing counts alike, a limit's past is what stands at its place, if no other limit has claimed that.",
	limits: []backend.Limit{log(5, 20*sec), window(7, 10*sec)},
	steps: []step{
		by{0, 4, yes, 1, 0, 20 * sec, 0},
		change{window(9, 10*sec), log(9, hour)},
		by{0, 0, yes, 5, 0, 10 * sec, 0}, // the window has moved; the log of an hour starts empty
		change{sliding(9, hour), per(9, hour)},
		by{0, 0, yes, 5, 0, 20 * sec, 0},
		by{1 * sec, 5, yes, 0, 0, 2 * hour, 0},
	},
}, {
	name:   "a place without a state",
	demand: "A limit that keeps no state has an empty slot at its place, so that the others keep theirs.",
	limits: []backend.Limit{backend.Unlimited(), window(5, 10*sec)},
	steps: []step{
		by{0, 3, yes, 2, 0, 10 * sec, 1},
		change{backend.Unlimited(), per(5, 20*sec)},
		by{0, 1, yes, 1, 0, 16 * sec, 1},
		change{log(5, 30*sec)},
		take{0, 5, yes, 0, 0, 30 * sec},
	},
}, {
	name:   "then the same Period",
	demand: "Where no algorithm and Period are the same, a limit's past is what counts over the same Period: at its own place, or else the first.",
	limits: []backend.Limit{per(10, 20*sec), window(7, 10*sec)},
	steps: []step{
		by{0, 4, yes, 3, 0, 10 * sec, 1},
		change{log(9, 10*sec), window(9, 20*sec)},
		by{0, 0, yes, 5, 0, 10 * sec, 0},       // each has left its place
		by{2 * sec, 1, yes, 4, 0, 10 * sec, 0}, // 5 in the log now, and 3 and 1 in the window
		change{window(9, 10*sec), per(9, 10*sec)},
		by{2 * sec, 0, yes, 4, 0, 10 * sec, 0}, // the bucket has the window, which is at its place
		change{per(9, hour), sliding(7, 20*sec), per(9, 20*sec)},
		by{2 * sec, 0, yes, 3, 0, 20 * sec, 1}, // nothing is left for the third
		change{log(9, 10*sec), window(9, 10*sec)},
		by{2 * sec, 1, yes, 3, 0, 10 * sec, 0}, // 6 in the log, 5 in the window
		change{per(20, hour), sliding(9, 10*sec)},
		by{2 * sec, 0, yes, 4, 0, 10 * sec, 1}, // the second keeps its place
	},
}, {
	name:   "a limit that was taken out",
	demand: "A limit that has recovered finds itself, and not what another was charged that was taken out.",
	limits: []backend.Limit{window(100, day), per(10, 10*sec), log(10, 20*sec)},
	steps: []step{
		by{0, 10, yes, 0, 0, 10 * sec, 1},
		change{per(10, 10*sec), log(10, 20*sec)},
		by{20 * sec, 0, yes, 10, 0, 0, 0},
		by{20 * sec, 10, yes, 0, 0, 10 * sec, 0},
	},
}, {
	name:   "what was given back is still its own past",
	demand: "A limit whose charges were all given back, or that had recovered then, finds itself.",
	limits: []backend.Limit{window(100, day), per(10, 10*sec), log(10, 20*sec), window(10, 10*sec)},
	steps: []step{
		by{0, 10, yes, 0, 0, 10 * sec, 1},
		refund{0, 1},
		by{0, 10, yes, 0, 0, 10 * sec, 1},
		by{20 * sec, 10, yes, 0, 0, 10 * sec, 1},
		refund{31 * sec, 3},
		change{log(10, 20*sec), window(10, 10*sec), per(10, 10*sec)},
		by{31 * sec, 10, yes, 0, 0, 20 * sec, 0}, // and not the 10 units of the day
	},
}, {
	name:   "stateless limits in between",
	demand: "While a limit is unlimited, or blocks everything, the state ages under the limit that it was charged to.",
	limits: one(per(10, 10*sec)),
	steps: []step{
		take{0, 5, yes, 5, 0, 5 * sec},
		change{backend.Unlimited()},
		take{1 * sec, 100, yes, math.MaxInt64, 0, 0},
		change{per(0, 20*sec)},
		take{1 * sec, 1, no, 0, never, 0},
		change{per(10, 20*sec)},
		take{2 * sec, 1, yes, 6, 0, 8 * sec}, // 3 used, and 1, at 2 s each
		change{window(0, 20*sec)},
		take{2 * sec, 1, no, 0, never, 0},
		change{backend.Unlimited().WithAlgorithm(backend.SlidingLog)},
		take{2 * sec, 1, yes, math.MaxInt64, 0, 0},
		change{per(10, 20*sec)},
		take{4 * sec, 0, yes, 7, 0, 6 * sec},
	},
}, {
	name:   "a refusal starts no window",
	demand: "A refusal writes nothing: it starts no window of the limits that would have allowed, and changes no limit.",
	limits: one(window(2, 10*sec)),
	steps: []step{
		take{0, 2, yes, 0, 0, 10 * sec},
		change{window(2, 20*sec), window(9, hour), sliding(9, hour)},
		take{5 * sec, 1, no, 0, 5 * sec, 5 * sec},
		take{10 * sec, 1, yes, 1, 0, 20 * sec},
		change{backend.Unlimited(), window(9, hour)},
		take{10 * sec, 0, yes, 8, 0, hour},
		change{backend.Unlimited(), backend.Unlimited(), sliding(9, hour)},
		take{10 * sec, 0, yes, 8, 0, 2 * hour},
	},
}, {
	name:   "the longest wait of limits that changed",
	demand: "Among limits that changed too the refusing one with the longest wait decides, and each waits as the limit that was charged does.",
	limits: []backend.Limit{window(5, 10*sec), log(5, 20*sec)},
	steps: []step{
		by{0, 5, yes, 0, 0, 10 * sec, 0},
		change{window(4, hour), log(4, 5*sec)},
		by{1 * sec, 1, no, 0, 19 * sec, 19 * sec, 1},
		by{10 * sec, 1, no, 0, 10 * sec, 10 * sec, 1},
		by{20 * sec, 1, yes, 3, 0, hour, 0},
	},
}}

var backwardTraces = []trace{{
	name:   "token bucket",
	demand: "When the clock goes back the units used grow by what was refilled since, at most to the capacity.",
	limits: one(per(10, 10*sec)),
	steps: []step{
		take{0, 5, yes, 5, 0, 5 * sec},
		take{-3 * sec, 0, yes, 2, 0, 8 * sec},
		take{-3 * sec, 1, yes, 1, 0, 9 * sec},
		take{-hour, 0, no, 0, 1 * sec, 10 * sec},
		take{0, 0, yes, 4, 0, 6 * sec}, // the look wrote nothing
		take{-hour, 1, no, 0, 1 * sec, 10 * sec},
		take{-hour + 5*sec, 5, yes, 0, 0, 10 * sec},
		take{-hour + 15*sec, 10, yes, 0, 0, 10 * sec},
	},
}, {
	name:   "token bucket: clamped to the last part of a µs",
	demand: "When the clock goes back no more than the capacity is used, to the last part of a µs.",
	limits: one(per(1500, ms).WithBurst(2)),
	steps: []step{
		take{0, 1, yes, 1, 0, 1 * µs},
		take{-1 * µs, 0, no, 0, 1 * µs, 2 * µs}, // 4/3 µs, not 5/3
	},
}, {
	name:   "token bucket: clamped before it is carried",
	demand: "A limit that changes after the clock went back carries over no more units than the old one had, to the last part of a µs.",
	limits: one(per(1500, ms).WithBurst(2)),
	steps: []step{
		take{0, 1, yes, 1, 0, 1 * µs}, // a unit is 2/3 µs
		change{per(3000, ms).WithBurst(10)},
		take{-1 * µs, 0, yes, 8, 0, 2 * µs},
		take{-1 * µs, 1, yes, 7, 0, 1 * µs},
	},
}, {
	name:   "a refusal begins the wait only once",
	demand: "A refused charge after the clock went back writes what had to be repaired, all of it under the limits that it was charged under, so that its wait counts down.",
	limits: []backend.Limit{window(5, 10*sec), log(8, 10*sec)},
	steps: []step{
		take{0, 5, yes, 0, 0, 10 * sec},
		change{window(3, 20*sec), log(6, 20*sec)},
		take{-hour, 0, no, 0, 10 * sec, 10 * sec},
		take{-hour + 1*sec, 1, no, 0, 10 * sec, 10 * sec},
		take{-hour + 4*sec, 1, no, 0, 7 * sec, 7 * sec},
		change{log(8, 10*sec), window(9, 20*sec)}, // the log has moved, the window starts empty
		take{-hour + 4*sec, 0, yes, 3, 0, 7 * sec},
		change{window(5, 10*sec)},
		take{-hour + 11*sec, 5, yes, 0, 0, 10 * sec},
	},
}, {
	name:   "sliding window",
	demand: "When the clock goes back before the window's start, the window starts again with the units used.",
	limits: one(sliding(10, 10*sec)),
	steps: []step{
		take{0, 5, yes, 5, 0, 20 * sec},
		take{12 * sec, 2, yes, 4, 0, 18 * sec},
		take{11 * sec, 0, yes, 3, 0, 19 * sec}, // still in the window
		take{3 * sec, 0, yes, 3, 0, 20 * sec},
		take{3 * sec, 3, yes, 0, 0, 20 * sec},
		take{13 * sec, 1, yes, 4, 0, 20 * sec},
	},
}, {
	name:   "sliding window: both windows",
	demand: "When the clock goes back before the window's start, what was used in it and in the one before stays, also above the count.",
	limits: one(sliding(10, 10*sec)),
	steps: []step{
		take{0, 10, yes, 0, 0, 20 * sec},
		take{15 * sec, 5, yes, 0, 0, 15 * sec},
		take{9 * sec, 0, no, 0, 6 * sec, 20 * sec},
		take{9 * sec, 1, no, 0, 6 * sec, 20 * sec},
		take{15 * sec, 1, yes, 0, 0, 14 * sec},
	},
}, {
	name:   "sliding log",
	demand: "When the clock goes back, charges from the future are taken for new.",
	limits: one(log(3, 10*sec)),
	steps: []step{
		take{0, 1, yes, 2, 0, 10 * sec},
		take{5 * sec, 1, yes, 1, 0, 10 * sec},
		take{2 * sec, 0, yes, 1, 0, 10 * sec},
		take{2 * sec, 1, yes, 0, 0, 10 * sec},
		take{10 * sec, 1, yes, 0, 0, 10 * sec},
		take{-hour, 1, no, 0, 10 * sec, 10 * sec},
		take{-hour + 10*sec, 3, yes, 0, 0, 10 * sec},
	},
}, {
	name:   "sliding log: charges that meet",
	demand: "Charges from the future are from then on one charge at the present instant.",
	limits: one(log(9, 10*sec)),
	steps: []step{
		take{3 * sec, 1, yes, 8, 0, 10 * sec},
		take{5 * sec, 1, yes, 7, 0, 10 * sec},
		take{-1 * sec, 3, yes, 4, 0, 10 * sec},
		refund{-1 * sec, 3},
		take{-1 * sec, 0, yes, 7, 0, 10 * sec},
	},
}, {
	name:   "sliding log: an empty one",
	demand: "A log that is empty again after the clock went back has nothing to reset.",
	limits: []backend.Limit{log(3, 10*sec), window(9, 10*hour)},
	steps: []step{
		take{0, 1, yes, 2, 0, 10 * sec},
		take{-hour, 1, yes, 1, 0, 10 * sec},
		change{log(3, 10*sec)},
		take{-hour + 10*sec, 0, yes, 3, 0, 0},
	},
}, {
	name:   "fixed window",
	demand: "When the clock goes back before the window's start, the window starts again with the units used.",
	limits: one(window(5, 10*sec)),
	steps: []step{
		take{0, 3, yes, 2, 0, 10 * sec},
		take{-1 * µs, 0, yes, 2, 0, 10 * sec},
		take{-hour, 1, yes, 1, 0, 10 * sec},
		take{-hour + 1*sec, 2, no, 1, 9 * sec, 9 * sec},
		take{-hour + 10*sec, 5, yes, 0, 0, 10 * sec},
	},
}}
