/** What a user does, and what must then be so. Each scenario has a context, and where keys are set an owner, of its own. */

import * as answers from "./answers.mjs";
import * as appearance from "./appearance.mjs";
import * as conversations from "./conversations.mjs";
import * as speed from "./speed.mjs";
import * as survival from "./survival.mjs";

export const scenarios = { ...answers, ...appearance, ...conversations, ...speed, ...survival };
