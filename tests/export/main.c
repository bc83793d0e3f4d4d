/* Reads observations from standard input, all their raw numbers in a row, and writes the actions.
   With an argument, every observation is followed by its noise. */
#include <stdio.h>

#include "trpo_policy.h"

/* the types, whatever the policy's are */
#ifndef REAL
#define REAL float
#endif
#ifndef ACTION
#define ACTION float
#endif

int main(int argc, char **argv) {
  static REAL observation[TRPO_POLICY_OBSERVATION], noise[TRPO_POLICY_ACTION];
  static ACTION action[TRPO_POLICY_ACTION];
  (void)argv;
  while (fread(observation, sizeof(REAL), TRPO_POLICY_OBSERVATION, stdin) ==
         TRPO_POLICY_OBSERVATION) {
    if (argc > 1 &&
        fread(noise, sizeof(REAL), TRPO_POLICY_ACTION, stdin) != TRPO_POLICY_ACTION)
      return 3;
    if (trpo_policy_act(observation, argc > 1 ? noise : NULL, action) != 0) return 2;
    if (fwrite(action, sizeof(ACTION), TRPO_POLICY_ACTION, stdout) != TRPO_POLICY_ACTION) return 4;
  }
  return 0;
}
