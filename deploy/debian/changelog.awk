# Debian's changelog, made of CHANGELOG.md: awk -v maintainer='NAME <ADDRESS>' -f changelog.awk CHANGELOG.md
#
# A release of CHANGELOG.md, "## [1.0.0] - 2026-11-23", is an entry; a line that begins with "- " and what is indented
# below it is an item.

function end_item(    words, count, i, line)
{
	count = split(item, words, " ")
	line = "  *"
	for (i = 1; i <= count; i++) {
		if (length(line " " words[i]) > 78) {
			print line
			line = "   "
		}
		line = line " " words[i]
	}
	if (count > 0)
		print line
	item = ""
}

function end_release()
{
	end_item()
	if (date != "")
		printf "\n -- %s  %s\n\n", maintainer, date
}

/^## \[/ {
	end_release()
	split($0, part, /[][]/)
	command = "LC_ALL=C date --utc -R -d " $NF
	command | getline date
	close(command)
	printf "warmup-fcgi (%s) unstable; urgency=medium\n\n", part[2]
	next
}

/^- / {
	end_item()
	item = substr($0, 3)
	next
}

/^  / { item = item $0 }
END { end_release() }
