"""Every tunable of the kernel, with its unit and its reason. These are the house's own.

What administrators change is in `config.py` and, for what each principal may use, in `limits.toml` of the policies.
"""

from typing import Final

from kernos.syscalls.store import CHUNK

# --- messages -------------------------------------------------------------------------------------------------------------------

SEND_QUEUE: Final = 1_000
"""Messages the kernel holds for a client that does not read. At 30 tokens/s on 8 streams this is 4 s; whoever is later is cut off."""

RECEIVE_QUEUE: Final = 200
"""Messages libzmq reads ahead per client. Small, as a client should feel back-pressure before the kernel holds megabytes for it."""

DEVICE_QUEUE: Final = 20_000
"""Commands waiting for a device server. Turns in flight bound them far below this; a full queue means that the device hangs."""

DRAIN: Final = 64
"""Work messages taken before the control socket is looked at again: at ~30 us a call, control waits at most about 2 ms."""

BACKLOG: Final = 4_096
"""Connections waiting to be accepted; the default of 100 makes a thousand agents starting together wait for seconds."""

HANDSHAKE_MS: Final = 3_000
"""Half-open connections are dropped after this; libzmq's 30 s would let garbage connections pile up."""

CUT_OFF_RETRY_S: Final = 0.25
"""How often a cut-off client is tried again with the notice that it was cut off."""

# --- calls ----------------------------------------------------------------------------------------------------------------------

CALLS_IN_FLIGHT: Final = 4_096
"""Waiting calls of the whole kernel; each holds a few KB."""

IDEMPOTENCY_RECORDS: Final = 1_000
"""Outcomes of one principal's calls with an idempotency key; the oldest go first. A record is kept at most `IDEMPOTENCY_S`."""

IDEMPOTENCY_S: Final = 24 * 3_600.0
"""Seconds an outcome is remembered: a client that retries does so within a day."""

IDLE_BOOKS: Final = 10_000
"""Books of principals before those that say nothing any more are closed; each takes about 1 KB."""

QUOTA_RETRY_S: Final = 1.0
"""When to try again if too many turns or calls are in flight: nobody knows when one ends."""

# --- processes ------------------------------------------------------------------------------------------------------------------

PROCESSES: Final = 100_000
"""Rows of the process table, a few KB each."""

ZOMBIES: Final = 1_000
"""Rows of ended agents that nobody has collected with `process.wait`; the oldest go first."""

ORPHAN_S: Final = 30.0
"""After a restart, how long an agent waits for a program that is gone: its successor may call as it, and go on where it was."""

COUNT_S: Final = 1.0
"""How often counters of agents and token buckets of principals are written down: a kill forgets what was used in between."""

COUNTED: Final = 500
"""Agents whose counters are written down at a time: 500 rows take about 7 ms of the writer, which everybody else waits for."""

STORY_LINES: Final = 32
"""What is remembered of each agent's past for error reports."""

RESTARTS: Final = 3
"""Restart intensity: more crashes than this within `RESTART_WINDOW_S` and the supervisor gives up, as in Erlang/OTP."""

RESTART_WINDOW_S: Final = 10.0
"""See `RESTARTS`."""

APP_RESTART_DELAY_S: Final = 0.5
"""Pause before an app is started again, so that a crash at start does not spin."""

DELEGATIONS: Final = 16
"""Parents whose limits an agent carries: each is looked through for each need of each call of its."""

# --- turns ----------------------------------------------------------------------------------------------------------------------

QUEUED_TURNS: Final = 1_024
"""Turns waiting for a slot; beyond this callers are asked to come back."""

RESUMES: Final = 3
"""How often a turn is carried on after a device crash. A turn that is there at every crash may be its cause."""

LEASE_TOKENS: Final = 32
"""Tokens of a lease. Renewing one costs a message, so a lease should last many steps; a revoke acts at the next token anyway."""

LEASE_LOW: Final = 16
"""A lease is renewed when so many tokens are left: at the most a few steps are under way between kernel and device."""

LEASE_LAST: Final = 1
"""Tokens left of a lease when its slot is passed on: what the device produces in the step under way while the report is on its way."""

QUANTUM_TOKENS: Final = 32
"""Tokens a turn of an agent of weight 1 runs before it gives way to an equal that was served less; in proportion to the weight. Coming
back is by copying its KV pages, 1 to 2 ms between steps of 30 to 40 ms, so that a change of all 8 rows every 32 steps costs about 1 %.
Half as many would cost twice that; more would make others wait longer (32 steps are about a second) and lend fairness a coarser grain."""

QUANTUM_RECOMPUTED: Final = 256
"""The same where a turn that comes back computes its tokens again, at a quarter of a new one each: a short one would burn the device."""

QUANTUM_LEAST: Final = 8
"""The least quantum, whatever the weight: below it a row would be copied as often as every few steps."""

LEVEL_TOKENS: Final = 256
"""Service in the first queue of the `mlfq` policy, which doubles by level: most answers to a person are shorter."""

AGED_TOKENS: Final = 256
"""Tokens that a starving class may run when it gets a slot: it moves on by a paragraph, and the classes above lose a slot for seconds."""

PREFILL_WEIGHT: Final = 0.2
"""What a prompt token costs of a produced one: 1,180 against 226 tokens/s were measured at 8 rows on a CPU."""

STARVE_S: Final = 30.0
"""A class that waits so long while more urgent ones run gets one slot: late is better than never, and the others barely notice."""

LATELY_S: Final = 10.0
"""Over how long it is looked whether a principal asks for tokens faster than its rate."""

FLOOD_RATIO: Final = 1.2
"""From how many times its rate on that is a flood: one of ten times the usual shows in a second or two, while an app that uses four fifths
of its rate by 2 calls a second is hardly ever taken for one. At the rate itself it was for a twentieth of the time, and waited for it; at
1.5 the calls of others had waited for twice as long as without a flood before it showed."""

BESIDE_SHARE: Final = 1 / 3
"""Share of a device that encoders get beside decoders of the next class, of others a part of that. With a quarter, texts of an app that
used a quarter waited for a second when the answers of others took longer."""

BESIDE_SAVED_S: Final = 1.0
"""Seconds of it that can be saved up: some fifteen calls of eight sentences, so that arrivals by chance hardly ever wait for their share.
With less than half of it, one in ten pieces of an app that used two thirds of the share did."""

BESIDE_OWED_S: Final = 0.4
"""Seconds of it that are owed at the most for what was taken of an idle device: who had that for long waits for 1.6 s."""

PIECE_S: Final = 0.03
"""Seconds of an encoder's piece, in which nobody else computes on its device: about a step of a decoder. Shorter ones would cost more than
a tenth in calls and kernel time; longer ones would be noticed by those who wait for a first token."""

PIECE_LEAST: Final = 128
"""Tokens of a piece at the least, and until the pace of the encoder is known."""

PIECE_MOST: Final = 16_384
"""Tokens of a piece at the most, however fast its device: they have to lie in its memory together."""

INLINE_TEXT: Final = 4_000
"""Characters tokenized in the loop itself (about 1 ms); longer texts go to a thread."""

# --- KV pages -------------------------------------------------------------------------------------------------------------------

SAVE_AHEAD: Final = 256
"""Tokens of a prompt that the step under way may compute beyond what was reported, when its turn leaves its slot."""

KEEP_QUANTILE: Final = 0.8
"""So many of the agents that pause between two turns shall find their KV; the last fifth would take several times as long to wait for."""

KEEP_MARGIN: Final = 1.2
"""KV is kept this much longer than that quantile of the pauses seen, as they scatter."""

KEEP_FIRST_S: Final = 30.0
"""How long before anything is known of an app."""

KEEP_LEAST_S: Final = 1.0
"""How long where hardly any agent comes back: some tools answer at once."""

KEEP_MOST_S: Final = 300.0
"""How long at most: memory is for those who compute."""

PAUSES: Final = 64
"""Pauses remembered of each app: enough for a quantile, few enough to follow a change."""

# --- memory ---------------------------------------------------------------------------------------------------------------------

CONTEXT_BYTES: Final = 8 << 20
"""Text of one context: about two million tokens, far beyond any window."""

HIGH_WATER: Final = 0.9
"""Share of the model's window beyond which the oldest messages leave it: the rest is for the answer."""

LOW_WATER: Final = 0.5
"""Down to which they leave. The KV behind them is computed again then, so it should be rare: at most two tokens for each one appended."""

NOTICE_WATER: Final = 0.8
"""Share of the window beyond which agents are told of what will leave it: a summary is written while it fills, and no turn has to wait."""

NOTICE_S: Final = 30.0
"""The longest that a turn waits for agents that were told: some hundred tokens of a summary on a busy CPU. Then messages leave anyhow."""

NOTICE_MESSAGES: Final = 1_024
"""Messages in a notice, as many as `context.read` gives at once; where more leave, the others can be read."""

RECALL_SHARE: Final = 8
"""What is recalled for a message takes at most this part of the window: 1,024 of 8,192 tokens, where 84 % of the evidence was measured."""

RECALL_LEAST: Final = 1.0
"""Points of a page that is recalled unasked: one standard deviation in meaning, or an eighth of the words. Less says nothing."""

RECALL_PAGES: Final = 64
"""Pages recalled for a message at the most: they are small, and each costs a look-up."""

EMBED_BATCH: Final = 4
"""Pages embedded together: a few pieces of the encoder."""

INDEX_BATCH: Final = 64
"""Messages still in their windows that get pages together when they are searched: some 20 ms, during which nobody else can write."""

EMBED_RETRY_S: Final = 5.0
"""When pages that could not be embedded are tried again; they are found by their words meanwhile."""

EXPLAINED: Final = 256
"""Contexts of which it is remembered what the model saw last, at about a window of text each."""

CHUNK_BYTES: Final = CHUNK
"""Bytes of a large file that are stored and checked together: big enough that a row costs nothing, small enough to read a part."""

WRITES: Final = 4_096
"""Jobs waiting for the writer: as many as there can be calls in flight."""

READS: Final = 4_096
"""Queries waiting for the reader threads; as above."""

READERS: Final = 2
"""Threads that read the database. Reads are short and the cores are few."""

WRITE_GROUP: Final = 256
"""Jobs committed together at the most: at some 50 us each, the first of them waits about 13 ms for the last."""

LOG_PAGES: Final = 1_000
"""Pages of the write-ahead log (4 KiB each) that are copied into the database when there is nothing else to do."""

LOG_PAGES_MOST: Final = 1_600
"""Pages that are copied even if there is something else to do; it takes about 10 ms."""

LOG_BYTES: Final = 8 << 20
"""The log's file is made this large at once: a commit into room that is there was measured at 0.4 ms, one that grows the file at 7 ms."""

VERIFY_BYTES: Final = 256 << 20
"""A database up to this size is checked whole when it is opened (0.4 s for 100 MB); of a larger one, each page when it is read."""

TIDY_S: Final = 3_600.0
"""How often old records are removed, and how long an upload may take; an hour more or less does not matter to either."""

TRIMMED: Final = 64
"""Old versions, or rollbacks, that are deleted in one change: others write in between."""

MAILBOX: Final = 1_000
"""Mails in a box; a sender to a full box is asked to come back."""

MAILBOXES: Final = 10_000
"""Boxes that hold mail."""

AUDIT_GROUP_S: Final = 0.005
"""How long entries of the audit log gather before they are written together. A `kill -9` loses at most those."""

AUDIT_ANCHOR_S: Final = 0.25
"""How often the audit log is made durable and the database told how far it goes, while it grows; on other threads."""

AUDIT_RETRY_S: Final = 1.0
"""When the audit log is tried again after the disk refused it."""

AUDIT_FILE_BYTES: Final = 8 << 20
"""A file of the audit log, about 40,000 entries: small enough to be searched in a moment."""

AUDIT_FILES: Final = 128
"""Files of the audit log that are kept, about 5 million entries in 1 GB; then the oldest goes. Export what must be kept longer."""

AUDIT_WAITING: Final = 20_000
"""Entries that wait while the audit log cannot be written, about 10 MB; later ones are counted, and the log says how many."""

TOOLS: Final = 4_096
"""Tools served at once."""

TOOL_TIMEOUT_S: Final = 60.0
"""How long a tool may take if its caller names no deadline."""

APPROVAL_S: Final = 3_600.0
"""How long a call may wait for somebody's consent, and consent for the call: who decides may be at lunch, but not on holiday."""

APPROVALS: Final = 1_000
"""Calls that wait for consent."""

APPROVALS_OF_AGENT: Final = 16
"""The same, of one agent: who is asked should read what he approves."""

DECISIONS: Final = 65_536
"""Policy decisions kept; when full the cache starts anew (callers choose objects, so it must not grow with them)."""
