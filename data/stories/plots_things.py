"""Plots about things: lost and found, a storm, a birthday present, a swap (see plots.py)."""

from __future__ import annotations

LOST = {
    "loss": [
        "<suddenly> {hero} [looked down|looked around|stopped|turned round], and the {thing} was "
        "[gone|missing|nowhere to be seen].",
        "But [in all the fun|after a while|during a race|between two games], {hero} lost the "
        "{kind} {thing} and felt <very> <sad>.",
        "<suddenly> {hero} [stood still|turned pale|gasped], because the {kind} {thing} [was gone"
        "|was missing|had vanished].",
        "When it was time for a [rest|drink|song], {hero} could not find the {thing} [anywhere|at "
        "all] and felt <very> <sad>.",
        '"My {thing} is [gone|missing|lost]!" [cried|sobbed] {hero}, and a [big|hot|salty] tear '
        "[rolled|ran] down {her} [cheek|nose|chin].",
    ],
    "beg": [
        '"[Please|Oh please] help me [look|search]," <pleaded> {hero}, "and {when} we will '
        '{promise}. I promise."',
        '"If you [help me|help me look|stay with me], I will {promise} with you {when}," '
        "<pleaded> {hero}, and {friend} <nodded>.",
        '"[Do not worry|Do not cry|Cheer up]," <said> {friend}. "We will look for it [now'
        '|together] and {promise} {when}."',
        '"I [promise|swear] to {promise} with you {when}," <pleaded> {hero}, "if you [help me|help '
        'me look|stay with me]."',
    ],
    "search": [
        "They [looked|searched] [high and low|everywhere|left and right] and even asked a <trait> "
        "<person> {place.at}.",
        "{hero} went [left|ahead], {friend} went [right|behind], and they [turned|lifted] every "
        "[stone|plank|leaf] <manner>.",
        "They asked a <person>, a <trait> old [man|lady] and even a [dog|goat|cow], but [nobody"
        "|no one] [had seen it|knew].",
        "[Step by step|Side by side|Bit by bit], they [crossed|searched] the whole {place}, "
        "[calling|singing|whispering] <manner>.",
        "{friend} [drew a map|made a plan|found tracks], so they [searched|crossed] the {place} "
        "<manner>, [step by step|side by side|bit by bit].",
    ],
    "find": [
        "<at_last> {friend} <saw> the {kind} {thing} <spot:place>, and {hero} [cheered|danced"
        "|jumped] for joy.",
        "<at_last> something {kind} [shone|peeped out] <spot:place>, and it [was|really was] the "
        "{thing}!",
        '"[Here|There] it is!" [cried|shouted] {friend}, for the {thing} was lying <spot:place>, '
        "[safe|dusty|muddy] but whole.",
        "<at_last> {hero} [knelt|bent] down and <saw> the {kind} {thing} <spot:place>, and "
        "{friend} [clapped|cheered|danced].",
    ],
}

STORM = {
    "storm": [
        "<suddenly> [dark|heavy|angry] clouds [gathered|covered the sky], and a [wild|cold"
        "|terrible] storm [began|broke out].",
        "The sky [turned|grew] [dark|wild], the air [roared|shook|trembled], and [water|hail] "
        "[drummed|poured] down.",
        "Nobody had [expected|noticed] the storm: first thunder [rumbled|growled|roared], then "
        "[lightning|hail] [struck|came down].",
        '"A storm!" [cried|shouted] {friend}, and [already|soon] [thunder|lightning] [shook'
        "|filled] the [sky|clouds|air].",
    ],
    "shelter": [
        "They [hid|knelt|huddled] <lair:place>, but {hero} had [dropped|lost|left] the {kind} "
        "{thing} [somewhere|on the way].",
        "{friend} and {hero} [hid|knelt|huddled] <lair:place>, but in the [hurry|rush|panic] the "
        "{kind} {thing} was [lost|left behind].",
        "Only <lair:place>, [wet|cold|pale] and [shaking|tired], {hero} [saw|noticed] that the "
        "{kind} {thing} was [gone|missing].",
    ],
    "comfort": [
        '"I am [scared|afraid]," <said> {hero}. "[Hold|Take] my hand," <answered> {friend}, '
        '"and {when} we will {promise}."',
        'To [pass the time|stay calm], they [sang|counted|told jokes], and {hero} <said>: "We '
        'will {promise} {when}. I promise."',
        '{friend} [trembled|shivered|wept], so {hero} <said>: "[Be brave|Cheer up|Do not '
        'cry], and {when} we will {promise}. I promise."',
        '"Will you {promise} with me {when}?" asked {friend} [softly|shyly|at last]. "I '
        'promise," <answered> {hero} <manner>.',
    ],
    "recover": [
        "<at_last> the storm [passed|moved on|died away], and {friend} <saw> the {thing} "
        "<spot:place>, [wet|muddy|cold] but [whole|safe].",
        "Then a [rainbow|pale light|small star] shone, and there, <spot:place>, lay the {thing}, "
        "[wet|muddy|cold] but [whole|safe].",
        "After the storm they [searched|crossed] the {place} and <saw> the {kind} {thing} "
        "<spot:place>, [wet|muddy|cold] but whole.",
        "<at_last> it was [quiet|still|calm] again, and {hero} <saw> the {thing} <spot:place>, "
        "[wet|muddy|cold] but [whole|safe].",
    ],
}

GIFT = {
    "birthday": [
        "{Her} <best> friend {friend} had a birthday [soon|that week], and {hero} had "
        "[promised|sworn] to {promise} with {friend.him}.",
        '"Will you {promise} with me on my birthday?" {her} <best> friend {friend} had '
        "asked, and {hero} had [promised|agreed|said yes].",
        "Soon {her} <best> friend {friend} would be [six|seven|eight|nine], and they had "
        "[agreed|planned|promised] to {promise}.",
    ],
    "buy": [
        "[Secretly|In secret|Quietly], {hero} [saved|earned|found] [ten|twenty|enough] pennies "
        "and bought a {kind} {thing} for {friend}.",
        "{hero} [wanted|needed] a [special|fine|real] present, and {her} {elder} helped {him} "
        "[choose|find] a {kind} {thing}.",
        "In a [tiny|dusty|dark] shop, {hero} [found|chose|bought] a <lovely> present, a {kind} "
        "{thing}.",
        '"What [should|can] I give {friend}?" {hero} asked {her} {elder}, and they [chose|found'
        "|bought] a {kind} {thing}.",
    ],
    "hide": [
        "{She} [wrapped|rolled|packed] it in [soft|thin|plain] paper, <walked> to the {place} "
        "and hid it <spot:place>.",
        "{hero} <walked> to the {place} and hid the {thing} <spot:place>, where [nobody|no "
        "one] would [look|search].",
        "To [keep it secret|keep it safe], {hero} <walked> to the {place} <manner> and hid the "
        "{thing} <spot:place>.",
    ],
    "wonder": [
        '"Why do you [smile|giggle|hum] [so much|all day]?" asked {friend}, but {hero} [only'
        "|just] [shrugged|winked|grinned].",
        "{friend} [noticed|felt|guessed] that something was [odd|strange|new] and [asked|begged"
        "|wondered], but {hero} [kept quiet|said nothing].",
        "[All week|For days|Every day] {friend} [asked|begged|wondered], but {hero} [hummed"
        "|whistled|smiled] and told [nobody|no one].",
        "{hero} [nearly|almost] told {friend} [twice|at supper|at school], but {she} [bit {her} "
        "lip|ran away|kept quiet] just in time.",
    ],
    "lead": [
        "When the [birthday|great day|big day] came, {hero} led {friend} to the {place} [by the "
        "hand|by the sleeve] <manner>.",
        "<at_last> the [birthday|great day|big day] came, and {hero} and {friend} <walked> to the "
        "{place} <together>.",
        '"[Close|Shut] your eyes," <said> {hero} on the [birthday|great day|big day] and led '
        "{friend} to the {place} <manner>.",
        "On the [birthday|great day|big day] {hero} [called|woke] {friend} [early|at dawn], and "
        "they <walked> to the {place}.",
    ],
    "joy": [
        "{friend} looked {spot.the}, <saw> the {kind} {thing} and [squealed|shouted|danced] with "
        "[joy|delight|surprise].",
        "There, {spot.the}, {friend} <saw> the {kind} {thing} and [hugged|kissed|thanked] {hero} "
        "[twice|at once|happily].",
        '"Look {spot.the}!" <said> {hero}, and {friend} <saw> the {thing} and [squealed|shouted'
        "|danced] with [joy|delight|surprise].",
    ],
    "end_gift": [
        "{friend} [keeps|has] the {kind} {thing} <home_spot> and [often|always|still] [thinks of"
        "|remembers] {hero} and the {place}.",
        "{friend} took the {kind} {thing} [everywhere|to school|to bed], and it [always|often] "
        "reminded {friend.him} of {hero} and the {place}.",
        '"This {kind} {thing} is the [best|finest|dearest] present of all," {friend} told {hero} '
        "[softly|happily|proudly] {place.at}.",
        "[Ever since|From then on], {hero} and {friend} [go|return] to the {place} with the "
        "{kind} {thing} [each|every] [spring|summer|autumn|winter].",
        "To see {friend} with the {kind} {thing} made {hero} [much|far] [happier|prouder] "
        "than any [present|gift|birthday].",
    ],
}

SWAP = {
    "trade": [
        "{friend} had a {tint} {swap}, and {hero} [gave|traded|swapped] the {kind} {thing} for it "
        "[without thinking|at once|happily].",
        '"Shall we [swap|trade]," <said> {friend}, "my {tint} {swap} for your {kind} '
        '{thing}?" {hero} <nodded>.',
        "There {friend} [held up|took out] a {tint} {swap}, and {hero} [quickly|happily] "
        "[traded|swapped] {her} {kind} {thing} for it.",
    ],
    "regret": [
        "But [soon|at bedtime|at supper|at noon] {hero} [missed|longed for] the {kind} {thing} "
        "and felt <very> <sad>.",
        "But the {swap} was [no fun|not the same], and {hero} missed the {kind} {thing} [more and "
        "more|so much|all day].",
        "But then {her} {elder} asked [about|for] the {thing}, and {hero} [felt|was] <very> "
        "<sad>.",
    ],
    "wish": [
        '"[Please|Oh please], may I have my {thing} back?" <pleaded> {hero}. "I [promise|swear] '
        'to {promise} with you {when}."',
        'So {she} <walked> to {friend}: "[Please|Oh please], give me my {thing}, and {when} '
        'we will {promise}."',
        '"I [miss|need|want] my {thing}," {hero} told {friend} [softly|shyly|at last]. "Swap '
        'back, and {when} we will {promise}!"',
    ],
    "back": [
        "{friend} <nodded>, gave back the {kind} {thing} and took the {tint} {swap} [home|away] "
        "<manner>.",
        '"[Of course|Gladly]," <answered> {friend}, and [soon|at once] the {tint} {swap} and the '
        "{thing} were [home|in the right hands].",
        "{friend} had [missed|wanted] the {tint} {swap} [too|all day], so they [swapped|traded] "
        "again and [laughed|sang|joked].",
    ],
    "end_swap": [
        "Now {hero} [keeps|guards] the {thing} <home_spot>, and {friend} [often|still"
        "|always] brings the {swap} to the {place}.",
        "They [meet|play|sit] {place.at} <daily>, {hero} with the {thing} and {friend} with "
        "the {swap}.",
        '"What is [old|dear|ours] is [often|always|still] best," {hero} told {friend} '
        "{place.at} and [hugged|admired] the {kind} {thing}.",
        "And when {hero} and {friend} [cross|see] the {place} with the {thing} and the {swap}, "
        "they [often|always|still] [grin|laugh|wink].",
    ],
}
