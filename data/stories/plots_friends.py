"""Plots about friends: an animal helped, a quarrel, a farewell (see data/stories/plots.py)."""

from __future__ import annotations

ANIMAL = {
    "carry": [
        "[That day|At noon|Soon|Later] {hero} <walked> to the {place} to show {her} <best> friend "
        "{friend} a {kind} {thing}.",
        "{Her} <best> friend {friend} was <busy> {place.at}, and {hero} brought a {kind} {thing} "
        "to [share|show {friend.him}|try out].",
        "{hero} and {her} <best> friend {friend} <walked> to the {place} <manner> to [try|test"
        "|show off] a {kind} {thing}.",
        '"Look what I [found|bought|was given]," <said> {hero} {place.at} and showed {her} '
        "friend {friend} a {kind} {thing}.",
    ],
    "cry": [
        "<suddenly> they heard a [soft|tiny|sad|strange] [sound|voice|sigh|squeak] <spot:place>.",
        "<suddenly> {friend} [stopped|stood still|gasped], for something [moved|trembled"
        "|rustled] <spot:place>.",
        '"[Hush|Wait|Listen]!" [said|whispered] {friend}. "Something is [crying|moving|hiding'
        '|shivering] <spot:place>."',
        "Something [small|soft|muddy|wet] was [crying|moving|hiding|shivering] <spot:place>, and "
        "{hero} [knelt|bent] down.",
    ],
    "plight": [
        "It was a <small> {animal} with a [sore|hurt|swollen] foot, and it was <very> [cold|weak"
        "|scared|tired].",
        "A <small> {animal} was [stuck|caught] in [some string|some wire|a torn sack|a knot of "
        "wool] and could not get [free|home|away].",
        "There [sat|lay|knelt] a <small> {animal}, <very> [cold|wet|tired|weak] and [hungry"
        "|thirsty|alone|afraid].",
        "They <saw> a <small> {animal} that had [lost its mother|lost its way|hurt its foot] and "
        "[shivered|trembled] all over.",
    ],
    "plan": [
        '"[Please|Oh please] help me [save|comfort] it," <pleaded> {hero}, "and I promise to '
        '{promise} with you {when}."',
        '{friend} was [afraid|scared], so {hero} <said>: "If you [help me|stay with me|are '
        'brave], we will {promise} {when}."',
        '"[First|Now] we [help|save] it, and {when} we will {promise}. I promise," <said> '
        "{hero} to {friend}.",
        '"I [know|see] what to do," <said> {friend}. "We [help|save] it now and {promise} '
        '{when}." {hero} <nodded>.',
    ],
    "rescue": [
        "Very [gently|slowly|quietly], {hero} [lifted|took] the {animal}, and {friend} <stroked> "
        "it with [a towel|a sock|warm hands].",
        "{friend} [fetched|brought] [water|help|a blanket], and {hero} <stroked> the {animal} "
        "until it [felt safe|felt better|fell asleep].",
        "They wrapped the {animal} in [wool|straw|moss], and {friend} [sang|read|hummed] to it "
        "until it [felt safe|felt better|fell asleep].",
        "{hero} [sat|stayed] with the {animal} and <stroked> it, and {friend} [fetched|brought] a "
        "<person>, who [knew|saw] what to do.",
    ],
    "feed": [
        "They [gave|fed|offered] it some {food}, and the {animal} ate [everything|every crumb|the "
        "whole lot] and [looked|felt] <happy>.",
        '"It likes {food}!" [laughed|cried] {friend}, for the {animal} ate [quickly|noisily'
        "|eagerly] and [wanted|begged for] more.",
        "{hero} [shared|brought|had] some {food}, and [soon|at once] the {animal} ate from {her} "
        "hand and [looked|felt] <happy>.",
    ],
    "end_animal": [
        "Now the {animal} [lives|sleeps|plays] {place.at} and [guards|watches|keeps] the "
        "{kind} {thing} for {hero}.",
        "{friend} let {hero} take it home from the {place}, and [now|at night] the {animal} "
        "[sleeps|rests|sits] with the {thing}.",
        "And whenever {hero} and {friend} go to the {place}, the {animal} [comes out|runs up] to "
        "[see|sniff|greet] the {kind} {thing}.",
        '"You are [safe|free|well] now," {hero} told the {animal} {place.at}, but it '
        "followed the {kind} {thing} [home|everywhere].",
        "{hero} [built|made] a small [bed|nest|house] {place.at}, and there the {animal} "
        "[guards|watches|keeps] the {kind} {thing}.",
    ],
}

QUARREL = {
    "meet": [
        "{Her} <best> friend was {friend}, and they [met|played|talked] {place.at} <often>.",
        "[After school|One day|At noon|Soon], {hero} [met|joined|visited] {her} <best> friend "
        "{friend} {place.at}.",
        "{hero} [invited|asked|took] {her} <best> friend {friend} to the {place} to [play|sing"
        "|rest|look for adventures].",
        "{friend}, {her} <best> friend, was <busy> {place.at}, and {hero} <walked> there <manner>.",
    ],
    "both": [
        "<suddenly> both of them <saw> a {kind} {thing} <spot:place> and [ran|rushed|hurried] to "
        "it.",
        "There, <spot:place>, they <saw> a {kind} {thing} that [nobody|no one] [seemed to own"
        "|wanted].",
        '"Look!" they [cried|shouted|called] [together|at once], for a {kind} {thing} was lying '
        "<spot:place>.",
    ],
    "quarrel": [
        '"[I saw it first|It is mine|Give it to me|Let go]!" [cried|shouted] {hero}, but {friend} '
        "[pulled harder|held on|shook {friend.her} head].",
        "Both [wanted|needed] the {thing}, and soon they [argued|shouted|fought] like [two geese"
        "|cats and dogs|two goats].",
        "{friend} wanted to [keep|have|carry] it, {hero} said no, and they [argued|shouted"
        "|fought] until [both were tired|both were in tears|it was dark].",
    ],
    "apart": [
        "{hero} [ran|stormed] [home|off|away] [in tears|without a word], and {friend} stayed "
        "{place.at} with the {thing}.",
        "{friend} [ran|stormed] [off|away] with the {thing}, and {hero} [sat|stood|stayed] alone "
        "{place.at}.",
        "They did not speak for [an hour|a day|two days|a week], and the {thing} [lay|stayed] "
        "[alone|forgotten] {spot.the}.",
    ],
    "sorry": [
        "But without {friend} [nothing|no game|no day] was [fun|the same], and {hero} [felt|was] "
        "<very> <sad>.",
        '"Is one {thing} worth [a quarrel|so many tears]?" asked {her} {elder}, and {hero} '
        "[shook {her} head|turned pale|wept] [softly|at once].",
        "{hero} [lay awake|ate nothing|could not sleep], [for|because] {she} missed {friend} "
        "[much|far|so much] more than the {thing}.",
    ],
    "turns": [
        '"[Forgive me|I was wrong|I am sorry]," {hero} told {friend} [softly|shyly|at last]. '
        '"Let us share the {thing} and {promise} {when}."',
        'Then {hero} <walked> to {friend} and said: "[Forgive me|I was wrong|I am sorry]. I '
        'promise to share it and {promise} with you {when}."',
        '"[Forgive me|I was wrong|I am sorry]," [said|whispered] {friend} [softly|shyly|at '
        'last]. "We will share the {thing} and {promise} {when}."',
    ],
    "peace": [
        "They [shook hands|hugged|smiled], and the quarrel [melted|was gone] like [butter|ice"
        "|sugar in tea].",
        "And so they were friends again, [closer|happier|prouder] than [before|ever], and both "
        "felt <very> <happy>.",
        "Both [laughed|wept|smiled] a little, and [now|then] the {kind} {thing} [belonged to"
        "|made] two <happy> children.",
    ],
    "end_shared": [
        "Now {hero} has the {thing} in [spring|summer], {friend} has it in [autumn|winter], and "
        "both [laugh|joke|sing] about it {place.at}.",
        "[Ever since|From then on], {hero} and {friend} have shared the {kind} {thing} and "
        "[often|still|always] meet {place.at}.",
        "A [note|card|sign] {place.at} [says|tells] that the {kind} {thing} belongs to "
        "{hero} and {friend}.",
        "And whenever two [children|friends|people] [argue|fight] {place.at}, {hero} and "
        "{friend} tell them [of|about] the {kind} {thing}.",
        "{hero} [learned|found out] {place.at} that a {kind} {thing} is [nothing|no fun] without "
        "{friend} to [share|enjoy] it.",
    ],
}

FAREWELL = {
    "pal": [
        "{She} and {friend} were the <best> of friends and [met|played|raced|talked] {place.at} "
        "<often>.",
        "Nobody made {him} [laugh|smile] like {friend}, and the {place} was their [secret"
        "|favourite|own] [kingdom|meeting place].",
        "Every [week|summer|Sunday] {hero} met {her} <best> friend {friend} {place.at}, and they "
        "[talked|laughed|sang] <long>.",
        "{She} loved the {place} [best|most] of all, because there {she} [always|often] met "
        "{friend}, {her} <best> friend.",
    ],
    "leaving": [
        "But one {weather} <day>, {friend} had to [move|sail|travel] to a [distant|faraway] "
        "[city|country] with {friend.her} {elder}.",
        '"We are moving [away|to the city|across the sea] [soon|next month|in spring]," <said> '
        "{friend} one day, and {hero} felt <very> <sad>.",
        "Then came [sad|bad|terrible] news: {friend} and {friend.her} {elder} were [moving"
        "|sailing] to a [distant|faraway] [city|country].",
        "But the {elder} of {friend} found work [in the city|across the sea|beyond the "
        "mountains], and {friend} had to [pack|leave|go] [soon|that week].",
    ],
    "keepsake": [
        "Before the [goodbye|journey|farewell], {hero} gave {friend} a {kind} {thing} {place.at} "
        "and [wept|smiled|waved] [a little|bravely].",
        '"[Take|Keep] this {kind} {thing} and [think of me|be brave]," <said> {hero} when they '
        "[met|parted|sat] {place.at}.",
        "They [met|sat|wept] {place.at} [once more|one last time], and {hero} gave {friend} a "
        "[gift|present], a {kind} {thing}.",
    ],
    "vow": [
        '"Come back [one day|some day|soon]," <pleaded> {hero}, "and we will {promise}." "I '
        'promise," <answered> {friend}.',
        '"[When|The day] I return, we will {promise}," {friend} [promised|swore], and they [hugged'
        "|waved|wept] until [the bus|the ship|the coach] left.",
        "They promised to {promise} [when|as soon as|the day] {friend} came back, and they [shook "
        "hands|linked fingers|hugged] [twice|bravely].",
    ],
    "waiting": [
        "[One year|Two years|Three years] [passed|went by], and {hero} [wrote|sent] [long|short"
        "|funny] letters <often>.",
        "[Spring|Summer] [passed|went by], then [autumn|winter], and {hero} [often|sometimes] sat "
        "{place.at} and [dreamed|hoped].",
        "{hero} counted the [days|weeks|months] and [often|sometimes] [sat|stood|waited] [alone"
        "|quietly] {place.at}.",
    ],
    "return": [
        "Then, on a {weather} <day>, {friend} [stood|waved|smiled] at the [door|gate|window], "
        "[taller|stronger|older] but the same.",
        "One {weather} <day> {hero} <walked> to the {place}, and there was {friend}, [taller"
        "|stronger|older] but the same!",
        "Then a [letter|note] [came|arrived], and on a {weather} <day> {hero} <saw> {friend} "
        "{place.at} [at last|again].",
    ],
    "same": [
        "{friend} had [kept|guarded] the {kind} {thing}, [a little|rather] [worn|faded"
        "|dusty] but [whole|clean|as fine as ever].",
        '"I kept your {thing} [all the time|every day]," <said> {friend} and [held up|took out] '
        "the {kind} {thing}.",
        "And what did {friend.she} [bring|have|hold]? The {kind} {thing}, [a little|rather] [worn"
        "|faded|dusty], but [whole|clean|as fine as ever]!",
    ],
    "kept": [
        "That very [day|evening|week|hour], [as promised|just as promised|true to their word], "
        "{hero} and {friend} {promise.did} <long>.",
        "The two friends had [kept their word|not forgotten], and that very [day|evening|week"
        "|hour] they {promise.did} <long>.",
        '"[Now|At last|Finally] we can {promise}," <said> {friend}, and {hero} and {friend} '
        "{promise.did} <long>.",
        "They {promise.did} that very [day|evening|week|hour], [for|because] a promise is a "
        "promise, and [sang|laughed|joked] [for hours|for a while].",
    ],
    "end_far": [
        "Now the {thing} [stands|lies|stays] <home_spot>, and {hero} and {friend} [meet|play"
        "|talk] {place.at} <daily>.",
        "{friend} never [left|moved away] again, and the {kind} {thing} [still|always] "
        "reminds {hero} of the {place}.",
        "And when {friend} had to [go|leave|travel] again, the {kind} {thing} [always|soon] "
        "[brought|led] {friend.him} back to the {place}.",
        '"Friends [can be|may be] far apart and still [close|near]," {hero} [says|thinks'
        "|writes] {place.at}, and the {thing} proves it.",
    ],
}
