package backendtest

import (
	"math"

	"github.com/ginlimit/ginlimit/backend"
)

var tokenBucketTraces = []trace{{
	name:   "starts full and refills continuously",
	demand: "A bucket starts full, gains one unit each Period/Count, and never holds more than its burst.",
	limits: one(per(60, 60*sec).WithBurst(3)),
	steps: []step{
		take{0, 1, yes, 2, 0, 1 * sec},
		take{0, 1, yes, 1, 0, 2 * sec},
		take{0, 1, yes, 0, 0, 3 * sec},
		take{0, 1, no, 0, 1 * sec, 3 * sec},
		take{999_999 * µs, 1, no, 0, 1 * µs, 2*sec + 1*µs},
		take{1 * sec, 1, yes, 0, 0, 3 * sec},
		take{3500 * ms, 1, yes, 1, 0, 1500 * ms},
		take{hour, 3, yes, 0, 0, 3 * sec},
		take{hour, 2, no, 0, 2 * sec, 3 * sec},
	},
}, {
	name:   "7 per second",
	demand: "A unit that comes every 142857.142857… µs comes at the first whole µs after each multiple, without drift.",
	limits: one(per(7, sec)),
	steps: []step{
		take{0, 7, yes, 0, 0, 1 * sec},
		take{0, 1, no, 0, 142_858 * µs, 1 * sec},
		take{142_857 * µs, 1, no, 0, 1 * µs, 857_143 * µs},
		take{142_858 * µs, 1, yes, 0, 0, 1 * sec},
		take{142_858 * µs, 1, no, 0, 142_857 * µs, 1 * sec},
		take{285_715 * µs, 1, yes, 0, 0, 1 * sec},
		take{428_571 * µs, 1, no, 0, 1 * µs, 857_144 * µs},
		take{428_572 * µs, 1, yes, 0, 0, 1 * sec},
		take{1 * sec, 4, yes, 0, 0, 1 * sec}, // 7 in all: the second is whole again
		take{1 * sec, 1, no, 0, 142_858 * µs, 1 * sec},
	},
}, {
	name:   "3 per 7 ms",
	demand: "A rate of 3 in 7000 µs is kept in thirds of a µs.",
	limits: one(per(3, 7*ms)),
	steps: []step{
		take{0, 3, yes, 0, 0, 7 * ms},
		take{0, 1, no, 0, 2334 * µs, 7 * ms},
		take{2333 * µs, 1, no, 0, 1 * µs, 4667 * µs},
		take{2334 * µs, 1, yes, 0, 0, 7 * ms},
		take{4666 * µs, 1, no, 0, 1 * µs, 4668 * µs},
		take{4667 * µs, 1, yes, 0, 0, 7 * ms},
		take{7 * ms, 1, yes, 0, 0, 7 * ms},
		take{7 * ms, 2, no, 0, 4667 * µs, 7 * ms},
		take{9333 * µs, 1, no, 0, 1 * µs, 4667 * µs},
		take{9334 * µs, 1, yes, 0, 0, 7 * ms},
	},
}, {
	name:   "1,000,000,000 per day",
	demand: "A unit every 86.4 µs is neither rounded to 86 nor to 87.",
	limits: one(per(1_000_000_000, day)),
	steps: []step{
		take{0, 1_000_000_000, yes, 0, 0, day},
		take{0, 1, no, 0, 87 * µs, day},
		take{86 * µs, 1, no, 0, 1 * µs, day - 86*µs},
		take{87 * µs, 1, yes, 0, 0, day},
		take{172 * µs, 1, no, 0, 1 * µs, day - 85*µs},
		take{173 * µs, 1, yes, 0, 0, day},
		take{432 * µs, 3, yes, 0, 0, day},
		take{432 * µs, 1_000_000_001, no, 0, never, day},
	},
}, {
	name:   "burst 1",
	demand: "With a burst of 1 units pass one by one, Period/Count apart: a leaky bucket.",
	limits: one(per(10, sec).WithBurst(1)),
	steps: []step{
		take{0, 1, yes, 0, 0, 100 * ms},
		take{0, 1, no, 0, 100 * ms, 100 * ms},
		take{99_999 * µs, 1, no, 0, 1 * µs, 1 * µs},
		take{100 * ms, 1, yes, 0, 0, 100 * ms},
		take{250 * ms, 1, yes, 0, 0, 100 * ms},
		take{250 * ms, 2, no, 0, never, 100 * ms},
	},
}, {
	name:   "burst above the count",
	demand: "A burst above the count fills at the same rate, beyond one Period.",
	limits: one(per(1, sec).WithBurst(5)),
	steps: []step{
		take{0, 5, yes, 0, 0, 5 * sec},
		take{2500 * ms, 2, yes, 0, 0, 4500 * ms},
		take{2500 * ms, 1, no, 0, 500 * ms, 4500 * ms},
		take{2500 * ms, 5, no, 0, 4500 * ms, 4500 * ms},
		take{7 * sec, 5, yes, 0, 0, 5 * sec},
	},
}}

var slidingWindowTraces = []trace{{
	name:   "weighs the window before",
	demand: "The window before counts with the share of it that the sliding window still covers, to the µs.",
	limits: one(sliding(10, 10*sec)),
	steps: []step{
		take{0, 10, yes, 0, 0, 20 * sec},
		take{0, 1, no, 0, 11 * sec, 20 * sec}, // in the next window, a tenth of which must pass
		take{10 * sec, 1, no, 0, 1 * sec, 10 * sec},
		take{10_999_999 * µs, 1, no, 0, 1 * µs, 9_000_001 * µs},
		take{11 * sec, 1, yes, 0, 0, 19 * sec},
		take{15 * sec, 4, yes, 0, 0, 15 * sec}, // half of 10, and 1, and 4
		take{15 * sec, 1, no, 0, 1 * sec, 15 * sec},
		take{15 * sec, 5, no, 0, 5 * sec, 15 * sec}, // at the window's end 5 take the place of 10
		take{15 * sec, 6, no, 0, 7 * sec, 15 * sec}, // a fifth of 5 must pass too
		take{21_999_999 * µs, 6, no, 5, 1 * µs, 8_000_001 * µs},
		take{22 * sec, 6, yes, 0, 0, 18 * sec},
		take{30 * sec, 0, yes, 4, 0, 10 * sec},
		take{30 * sec, 4, yes, 0, 0, 20 * sec},
		take{49_999_999 * µs, 10, no, 9, 1 * µs, 1 * µs},
		take{50 * sec, 10, yes, 0, 0, 20 * sec},
	},
}, {
	name:   "7 per second",
	demand: "Weights are compared as products, so that a seventh of a window is not rounded away.",
	limits: one(sliding(7, sec)),
	steps: []step{
		take{0, 7, yes, 0, 0, 2 * sec},
		take{999_999 * µs, 1, no, 0, 142_859 * µs, 1_000_001 * µs},
		take{1_142_857 * µs, 1, no, 0, 1 * µs, 857_143 * µs},
		take{1_142_858 * µs, 1, yes, 0, 0, 1_857_142 * µs},
	},
}, {
	name:   "windows follow one another from the first hit",
	demand: "A window starts where the one before ended, and after an empty one at the next hit.",
	limits: one(sliding(4, 4*sec)),
	steps: []step{
		take{0, 0, yes, 4, 0, 0},
		take{1 * sec, 1, yes, 3, 0, 8 * sec},
		take{6 * sec, 1, yes, 2, 0, 7 * sec}, // in [5 s, 9 s)
		take{12_999_999 * µs, 0, yes, 3, 0, 1 * µs},
		take{13 * sec, 0, yes, 4, 0, 0},
		take{14 * sec, 4, yes, 0, 0, 8 * sec},
		take{21_999_999 * µs, 4, no, 3, 1 * µs, 1 * µs},
		take{22 * sec, 4, yes, 0, 0, 8 * sec},
	},
}, {
	name:   "waits past the next window",
	demand: "A cost of the whole count has to wait until the current window is forgotten, two Periods after its start.",
	limits: one(sliding(3, 3*sec)),
	steps: []step{
		take{0, 1, yes, 2, 0, 6 * sec},
		take{1 * sec, 3, no, 2, 5 * sec, 5 * sec},
		take{3 * sec, 2, yes, 0, 0, 6 * sec},
		take{3 * sec, 3, no, 0, 6 * sec, 6 * sec},
		take{8_999_999 * µs, 3, no, 2, 1 * µs, 1 * µs},
		take{9 * sec, 3, yes, 0, 0, 6 * sec},
	},
}}

var slidingLogTraces = []trace{{
	name:   "every charge counts for one Period",
	demand: "A charge at t counts in [t, t+Period), and what is waited for is the charges that have to leave.",
	limits: one(log(3, 10*sec)),
	steps: []step{
		take{0, 1, yes, 2, 0, 10 * sec},
		take{4 * sec, 1, yes, 1, 0, 10 * sec},
		take{5 * sec, 1, yes, 0, 0, 10 * sec},
		take{5 * sec, 1, no, 0, 5 * sec, 10 * sec},
		take{5 * sec, 2, no, 0, 9 * sec, 10 * sec},
		take{5 * sec, 3, no, 0, 10 * sec, 10 * sec},
		take{5 * sec, 4, no, 0, never, 10 * sec},
		take{9_999_999 * µs, 1, no, 0, 1 * µs, 5_000_001 * µs},
		take{10 * sec, 1, yes, 0, 0, 10 * sec},
		take{10 * sec, 2, no, 0, 5 * sec, 10 * sec},
		take{14 * sec, 1, yes, 0, 0, 10 * sec},
		take{24 * sec, 3, yes, 0, 0, 10 * sec},
	},
}, {
	name:   "charges at one instant leave together",
	demand: "Several charges at one instant are as one charge of their sum.",
	limits: one(log(5, sec)),
	steps: []step{
		take{0, 2, yes, 3, 0, 1 * sec},
		take{0, 2, yes, 1, 0, 1 * sec},
		take{100 * ms, 1, yes, 0, 0, 1 * sec},
		take{100 * ms, 1, no, 0, 900 * ms, 1 * sec},
		take{100 * ms, 4, no, 0, 900 * ms, 1 * sec},
		take{100 * ms, 5, no, 0, 1 * sec, 1 * sec},
		take{999_999 * µs, 1, no, 0, 1 * µs, 100_001 * µs},
		take{1 * sec, 4, yes, 0, 0, 1 * sec},
		take{1_100 * ms, 1, yes, 0, 0, 1 * sec},
	},
}}

var fixedWindowTraces = []trace{{
	name:   "starts at the first hit",
	demand: "A window starts at the first charge, not at a look before it nor on the clock's round numbers, and lasts one Period.",
	limits: one(window(5, 10*sec)),
	steps: []step{
		take{0, 0, yes, 5, 0, 0},
		take{2 * sec, 6, no, 5, never, 0},
		take{3 * sec, 1, yes, 4, 0, 10 * sec},
		take{5 * sec, 4, yes, 0, 0, 8 * sec},
		take{5 * sec, 1, no, 0, 8 * sec, 8 * sec},
		take{12_999_999 * µs, 1, no, 0, 1 * µs, 1 * µs},
		take{13 * sec, 0, yes, 5, 0, 0},
		take{14 * sec, 5, yes, 0, 0, 10 * sec},
		take{14 * sec, 1, no, 0, 10 * sec, 10 * sec},
		take{23_999_999 * µs, 1, no, 0, 1 * µs, 1 * µs},
		take{24 * sec, 1, yes, 4, 0, 10 * sec},
	},
}, {
	name:   "a window's end frees all at once",
	demand: "What is charged at the very end of a window is forgotten with it.",
	limits: one(window(3, sec)),
	steps: []step{
		take{0, 1, yes, 2, 0, 1 * sec},
		take{999_999 * µs, 2, yes, 0, 0, 1 * µs},
		take{1 * sec, 3, yes, 0, 0, 1 * sec},
		take{1 * sec, 1, no, 0, 1 * sec, 1 * sec},
	},
}}

var severalLimitsTraces = []trace{{
	name:   "all or none",
	demand: "If one limit refuses, the others stay as they were; the refusing one with the longest wait decides, and never is the longest.",
	limits: []backend.Limit{window(5, sec).Named("short"), window(8, 10*sec).Named("long")},
	steps: []step{
		by{0, 5, yes, 0, 0, 1 * sec, 0},
		by{0, 1, no, 0, 1 * sec, 1 * sec, 0},
		by{1 * sec, 4, no, 3, 9 * sec, 9 * sec, 1},
		by{1 * sec, 3, yes, 0, 0, 9 * sec, 1},
		by{1 * sec, 0, no, 0, 9 * sec, 9 * sec, 1},
		by{1 * sec, 3, no, 0, 9 * sec, 9 * sec, 1},
		by{1 * sec, 6, no, 2, never, 1 * sec, 0},
		by{1 * sec, 9, no, 2, never, 1 * sec, 0},
		by{10 * sec, 5, yes, 0, 0, 1 * sec, 0},
		by{11 * sec, 5, no, 3, 9 * sec, 9 * sec, 1},
		by{11 * sec, 3, yes, 0, 0, 9 * sec, 1},
	},
}, {
	name:   "the longest wait decides wherever it stands",
	demand: "Of three limits that refuse, the one with the longest wait decides, whatever its place and whatever is left.",
	limits: []backend.Limit{window(3, 2*sec).Named("2s"), window(4, 3*sec).Named("3s"), window(5, sec).Named("1s")},
	steps: []step{
		by{0, 3, yes, 0, 0, 2 * sec, 0},
		by{0, 3, no, 1, 3 * sec, 3 * sec, 1},
		by{0, 1, no, 0, 2 * sec, 2 * sec, 0},
		by{0, 4, no, 0, never, 2 * sec, 0},
	},
}, {
	name:   "never is longer than any wait",
	demand: "A limit that can never pass the cost decides before one that makes it wait, in either order.",
	limits: []backend.Limit{window(10, hour).Named("wait"), window(4, sec).Named("never")},
	steps: []step{
		by{0, 4, yes, 0, 0, 1 * sec, 1},
		by{1 * sec, 4, yes, 0, 0, 1 * sec, 1},
		by{2 * sec, 5, no, 4, never, 0, 1},
		forget{2 * sec},
		change{window(4, sec).Named("never"), window(10, hour).Named("wait")},
		by{2 * sec, 4, yes, 0, 0, 1 * sec, 0},
		by{3 * sec, 4, yes, 0, 0, 1 * sec, 0},
		by{3 * sec, 5, no, 0, never, 1 * sec, 0},
	},
}, {
	name:   "else the least left decides",
	demand: "If all allow, the one with the least left decides.",
	limits: []backend.Limit{window(10, sec).Named("a"), window(6, sec).Named("b"), window(8, sec).Named("c")},
	steps: []step{
		by{0, 0, yes, 6, 0, 0, 1},
		by{0, 2, yes, 4, 0, 1 * sec, 1},
		change{window(6, sec).Named("a"), window(10, sec).Named("b"), window(8, sec).Named("c")},
		by{0, 1, yes, 3, 0, 1 * sec, 0},
		change{window(20, sec).Named("a"), window(10, sec).Named("b"), window(8, sec).Named("c")},
		by{0, 1, yes, 4, 0, 1 * sec, 2},
	},
}, {
	name:   "the first of equals",
	demand: "Of limits with equal waits, or with equally much left, the first decides.",
	limits: []backend.Limit{window(5, sec).Named("a"), window(5, sec).Named("b"), window(5, sec).Named("c")},
	steps: []step{
		by{0, 0, yes, 5, 0, 0, 0},
		by{0, 5, yes, 0, 0, 1 * sec, 0},
		by{0, 1, no, 0, 1 * sec, 1 * sec, 0},
		by{0, 6, no, 0, never, 1 * sec, 0},
	},
}, {
	name:   "four algorithms at once",
	demand: "Limits of different algorithms count side by side, each in its own way.",
	limits: []backend.Limit{
		per(10, 10*sec).Named("bucket"), sliding(10, 10*sec).Named("sliding"),
		log(10, 10*sec).Named("log"), window(10, 10*sec).Named("window"), log(100, 100*sec).Named("more than four"),
	},
	steps: []step{
		by{0, 4, yes, 6, 0, 4 * sec, 0},
		by{4 * sec, 6, yes, 0, 0, 16 * sec, 1},         // the bucket has 4 again
		by{5 * sec, 1, no, 0, 6 * sec, 15 * sec, 1},    // bucket 0, sliding 6 s, log 5 s, window 5 s
		by{10 * sec, 0, no, 0, 1 * sec, 10 * sec, 1},   // log: the first 4 are gone; window: over
		by{11 * sec, 1, yes, 0, 0, 19 * sec, 1},        // sliding: 9 of 10 and 1
		by{12 * sec, 2, no, 1, 1 * sec, 18 * sec, 1},   // sliding: 8 of 10 and 1
		by{20 * sec, 10, no, 9, 10 * sec, 10 * sec, 1}, // log: at 21 s
		by{21 * sec, 9, yes, 0, 0, 19 * sec, 1},        // sliding: 9 tenths of one, and 9
	},
}, {
	name:   "with an unlimited and a blocking one",
	demand: "An unlimited limit leaves the decision to the others; one with count 0 refuses for all of them, for ever.",
	limits: []backend.Limit{backend.Unlimited().Named("free"), window(2, sec).Named("two")},
	steps: []step{
		by{0, 2, yes, 0, 0, 1 * sec, 1},
		by{0, 1, no, 0, 1 * sec, 1 * sec, 1},
		change{backend.Unlimited().Named("free"), window(3, sec).Named("three"), per(0, sec).Named("none")},
		by{0, 1, no, 0, never, 0, 2},
		by{0, 0, no, 0, never, 0, 2},
		change{backend.Unlimited().Named("free"), window(3, sec).Named("three")},
		by{0, 1, yes, 0, 0, 1 * sec, 1},
		change{backend.Unlimited().Named("free"), backend.Unlimited().Named("too")},
		by{0, 1_000_000, yes, math.MaxInt64, 0, 0, 0},
	},
}}
