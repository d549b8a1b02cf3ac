"""Every name that leaves for OpenTelemetry: the GenAI conventions (still "development") and our own, in one place."""

# spans
TURN = "invoke_agent companion"
CONTEXT = "companion.context"
ACCEPT = "companion.accept"
COMMIT = "companion.commit"
CHAT = "chat"
EXECUTE_TOOL = "execute_tool"

# attributes: GenAI
OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
RESPONSE_ID = "gen_ai.response.id"
RESPONSE_MODEL = "gen_ai.response.model"
FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
CONVERSATION = "gen_ai.conversation.id"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHED_TOKENS = "gen_ai.usage.cache_read.input_tokens"
TOOL_NAME = "gen_ai.tool.name"
TOKEN_TYPE = "gen_ai.token.type"  # noqa: S105 - a kind of token that is counted, no secret
ERROR_TYPE = "error.type"
STORE_OPERATION = "db.operation.name"

# attributes: ours, of few values each
OWNER = "companion.owner.hash"
STATUS = "companion.turn.status"
ATTEMPT = "companion.turn.attempt"
DEPLOYMENT = "companion.deployment"
REASON = "companion.try.reason"
COST = "companion.cost"
CHARGE = "companion.request_charge"
OPERATIONS = "companion.store.operations"

# metrics: GenAI
TOKEN_USAGE = "gen_ai.client.token.usage"  # noqa: S105
DURATION = "gen_ai.client.operation.duration"
TIME_TO_FIRST_CHUNK = "gen_ai.client.operation.time_to_first_chunk"

# metrics: ours
TURN_COST = "companion.turn.cost"
TURN_CHARGE = "companion.turn.request_charge"
TURN_FIRST_TOKEN = "companion.turn.first_token"  # noqa: S105
TURNS = "companion.turns"
TAKE_OVERS = "companion.take_overs"
REFUSALS = "companion.refusals"
QUEUE_AGE = "companion.queue.age"
BREAKER = "companion.breaker.state"

UNITS = {
    TOKEN_USAGE: "{token}",
    DURATION: "s",
    TIME_TO_FIRST_CHUNK: "s",
    TURN_COST: "USD",
    TURN_CHARGE: "{RU}",
    TURN_FIRST_TOKEN: "s",
    TURNS: "{turn}",
    TAKE_OVERS: "{turn}",
    REFUSALS: "{request}",
    QUEUE_AGE: "s",
    BREAKER: "{state}",
}
COUNTERS = frozenset({TURNS, TAKE_OVERS, REFUSALS})
GAUGES = frozenset({BREAKER})
"""0 closed, 1 half open, 2 open. Everything else is a histogram."""
